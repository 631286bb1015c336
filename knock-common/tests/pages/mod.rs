//! Reading the project's Markdown, for tests that compare pages with code.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A page: its path from the root of the repository, and its text.
pub(crate) struct Page {
    /// The path, such as `docs/config.md`.
    pub(crate) path: PathBuf,
    /// The whole text.
    pub(crate) text: String,
}

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns all pages of the repository, in the order of their paths.
pub(crate) fn pages() -> Vec<Page> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = directory.join(&name);
            let is_ours = !name.starts_with('.') && name != "target";
            if entry.file_type().unwrap().is_dir() {
                directories.extend(is_ours.then_some(path));
            } else if name.ends_with(".md") {
                let text = fs::read_to_string(entry.path()).unwrap();
                found.push(Page { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 10, "{} pages", found.len());
    found
}

/// Returns the cells of each row of the tables below a heading, up to the next heading.
///
/// The first row of a table, with the names of its columns, is left out.
pub(crate) fn rows<'p>(text: &'p str, heading: &str) -> Vec<Vec<&'p str>> {
    let mut rows = Vec::new();
    let (mut is_below, mut is_code, mut is_body) = (false, false, false);
    let mut has_heading = false;
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        if line.starts_with('#') && !is_code {
            is_below = line == heading;
            has_heading |= is_below;
        }
        let row = line.strip_prefix('|').and_then(|row| row.strip_suffix('|'));
        let Some(row) = row.filter(|_| is_below && !is_code) else {
            is_body = false;
            continue;
        };
        if is_body {
            rows.push(row.split('|').map(str::trim).collect());
        }
        is_body |= row.starts_with("---");
    }
    assert!(has_heading, "there is no heading {heading:?}");
    rows
}
