//! The first words of doc comments of functions.

/// Returns the doc comments of functions that do not begin with a verb in the third person, as in "Returns", with
/// their lines, counted from 1. Tests are left out: their names are sentences.
pub(crate) fn without_verb(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    let mut found = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let docs = lines[index..]
            .iter()
            .take_while(|line| line.starts_with("///"))
            .count();
        let below = &lines[index + docs..];
        let attributes = below
            .iter()
            .take_while(|line| line.starts_with("#[") || line.is_empty())
            .count();
        let is_test = below[..attributes]
            .iter()
            .any(|line| line.ends_with("test]"));
        let is_function = below.get(attributes).is_some_and(|line| is_function(line));
        let first = lines[index].trim_start_matches('/').trim_start();
        if docs > 0 && is_function && !is_test && !begins_with_verb(first) {
            found.push((index + 1, first));
        }
        index += docs.max(1);
    }
    found
}

/// Returns whether a line begins a function.
fn is_function(line: &str) -> bool {
    const QUALIFIERS: [&str; 4] = ["const ", "async ", "unsafe ", "extern \"C\" "];
    let mut rest = line.strip_prefix("pub").map_or(line, |rest| {
        let rest = rest.trim_start();
        match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(") ").map_or("", |(_, rest)| rest),
            None => rest,
        }
    });
    while let Some(more) = QUALIFIERS.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = more;
    }
    rest.starts_with("fn ")
}

/// Returns whether a text begins like "Returns", or with a reference: "See".
fn begins_with_verb(text: &str) -> bool {
    let word = text.split(' ').next().unwrap_or_default();
    let word = word.trim_end_matches([',', '.', ':', ';']);
    let is_word = word.starts_with(|c: char| c.is_ascii_uppercase());
    word == "See" || is_word && word.ends_with('s') && !["Its", "This", "As"].contains(&word)
}
