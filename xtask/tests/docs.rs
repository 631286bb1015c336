//! The documentation agrees with the repository: links, paths, dependencies, tests.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a helper of a test fails with the test; the enums are those of others, and grow"
)]

#[path = "../../knock-common/tests/pages/mod.rs"]
mod pages;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use pages::{pages, root, rows};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use toml::Table;
use xtask::dist;

/// The directories of the repository whose paths appear in pages.
const DIRECTORIES: [&str; 12] = [
    "knock-common/",
    "knock-ebpf/",
    "knock-user/",
    "knock-client/",
    "knock-sequence/",
    "knock-wire/",
    "tests/",
    "bench/",
    "fuzz/",
    "xtask/",
    "docs/",
    "examples/",
];

#[test]
fn every_link_leads_somewhere() {
    let all = pages().into_iter().map(|page| (page.path, page.text));
    let dead = dead_links(&all.collect(), |path| root().join(path).exists());
    assert_eq!(dead, Vec::<String>::new());
}

/// Links between the files that `cargo xtask dist` installs lead to installed files.
#[test]
fn every_link_of_an_installed_document_leads_somewhere() {
    let mut pages = BTreeMap::new();
    let mut others = BTreeSet::new();
    for (from, to) in dist::documents(&root()).unwrap() {
        if to.extension().is_some_and(|extension| extension == "md") {
            pages.insert(to, fs::read_to_string(from).unwrap());
        } else {
            assert!(from.exists(), "{}", from.display());
            others.insert(to);
        }
    }
    assert!(pages.len() > 10, "{} pages", pages.len());
    let is_installed = |path: &Path| others.iter().any(|other| other.starts_with(path));
    assert_eq!(dead_links(&pages, is_installed), Vec::<String>::new());
    let unit = text("dist/knock-user.service");
    let links = unit
        .lines()
        .filter_map(|line| line.strip_prefix("Documentation=file:"));
    for link in links {
        let path = link.strip_prefix("/usr/local/").unwrap();
        assert!(pages.contains_key(Path::new(path)), "{link}");
    }
}

#[test]
fn every_path_in_a_page_exists() {
    let mut count = 0;
    for page in pages() {
        for line in page.text.lines() {
            for word in line.split('`').skip(1).step_by(2) {
                // `file::function`, which knock-common/tests/docs.rs looks for.
                let path = word.split("::").next().unwrap_or_default();
                let is_path = DIRECTORIES.iter().any(|name| path.starts_with(name));
                if !is_path || path.contains([' ', '*', '{']) {
                    continue;
                }
                count += 1;
                let is_there = root().join(path).exists();
                assert!(is_there, "{}: {path}", page.path.display());
            }
        }
    }
    assert!(count > 50, "{count} paths");
}

/// Pages name source files by the end of their path, such as `config/door.rs`.
#[test]
fn every_source_file_in_a_page_exists() {
    let mut sources = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if name.ends_with(".rs") {
                sources.push(path);
            }
        }
    }
    let (mut missing, mut count) = (Vec::new(), 0);
    for page in pages() {
        for word in page.text.split('`').skip(1).step_by(2) {
            let name = word.split("::").next().unwrap_or_default();
            let is_name = name.ends_with(".rs") && !name.contains([' ', '*', '{']);
            count += usize::from(is_name);
            if is_name && !sources.iter().any(|source| source.ends_with(name)) {
                missing.push(format!("{}: {name}", page.path.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(count > 100, "{count} source files");
}

#[test]
fn every_dependency_is_on_the_page() {
    let workspace: Table = text("Cargo.toml").parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut expected = BTreeMap::new();
    for member in members.iter().map(|member| member.as_str().unwrap()) {
        let manifest: Table = text(&format!("{member}/Cargo.toml")).parse().unwrap();
        expected.insert(member.to_owned(), dependencies(&manifest));
    }
    let page = text("ARCHITECTURE.md");
    let words = |cell: &str| {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let found: BTreeMap<String, BTreeSet<String>> = rows(&page, "## Dependencies")
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), words(row[1])))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn every_file_of_tests_is_on_the_page() {
    let page = text("CONTRIBUTING.md");
    let rows = rows(&page, "## Tests");
    let named = rows
        .iter()
        .flat_map(|row| row[1].split('`').skip(1).step_by(2));
    // `tests/tests/knock.rs`, and behind it `scan.rs`; directories end with a slash.
    let name = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    };
    let named: BTreeSet<_> = named.map(name).collect();
    let missing: Vec<_> = test_files().difference(&named).cloned().collect();
    assert_eq!(missing, Vec::<String>::new());
}

/// CONTRIBUTING.md names the files of knock-user that wait for several things at once.
#[test]
fn every_select_is_on_the_page() {
    let page = text("CONTRIBUTING.md");
    let mut directories = vec![root().join("knock-user/src")];
    let mut count = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            let mut code = source.lines().map(str::trim_start);
            if code.any(|line| !line.starts_with("//") && line.contains("select! {")) {
                let path = path.strip_prefix(root().join("knock-user/src")).unwrap();
                let path = path.display().to_string();
                assert!(page.contains(&format!("`{path}`")), "{path}");
                count += 1;
            }
        }
    }
    assert!(count > 0, "no select!");
}

/// Returns the relative links of a text, and its anchors.
fn links_and_anchors(text: &str) -> (Vec<String>, BTreeSet<String>) {
    let (mut links, mut anchors) = (Vec::new(), BTreeSet::new());
    let mut heading = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. })
                if !dest_url.contains("://") && !dest_url.starts_with("mailto:") =>
            {
                links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                anchors.extend(heading.take().as_deref().map(anchor));
            }
            Event::Text(words) | Event::Code(words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
            }
            _ => {}
        }
    }
    (links, anchors)
}

/// Returns the anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(kept)
        .collect::<String>();
    kept.replace(' ', "-")
}

/// Returns a path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// Returns the links of pages that lead nowhere; each page lies at its path, and `exists` knows other files and
/// directories.
fn dead_links(pages: &BTreeMap<PathBuf, String>, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<_, _> = pages
        .iter()
        .map(|(path, text)| (path, links_and_anchors(text).1))
        .collect();
    let mut dead = Vec::new();
    for (path, text) in pages {
        for link in links_and_anchors(text).0 {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                _ => normal(&path.parent().unwrap().join(file)),
            };
            let is_there = match anchors.get(&target) {
                Some(anchors) => anchor.is_empty() || anchors.contains(anchor),
                None => exists(&target),
            };
            if !is_there {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    dead
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Returns the dependencies of a crate, on any operating system; not those of its tests and build script.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let targets = manifest
        .get("target")
        .and_then(|targets| targets.as_table());
    let targets = targets.into_iter().flat_map(|targets| targets.values());
    let tables = targets.filter_map(|target| target.as_table());
    let tables = tables.chain([manifest]);
    let dependencies = tables.filter_map(|table| table.get("dependencies")?.as_table());
    dependencies
        .flat_map(|dependencies| dependencies.keys().cloned())
        .collect()
}

/// Returns the entries of tests/tests: files of tests, and directories of tests with several files.
fn test_files() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("tests/tests")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".toml")).collect()
}
