//! The words that docs/style.md excludes, and the search for them.

use super::pages::root;

/// A listed word in a text.
pub(crate) struct FoundWord {
    /// The line on which it begins, counted from 1.
    pub(crate) line: usize,
    /// The word or phrase.
    pub(crate) word: String,
}

/// The heading of the list in docs/style.md.
pub(crate) const HEADING: &str = "## Words that are not used";

/// Returns the listed words and phrases, in lower case.
pub(crate) fn listed() -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/style.md")).unwrap();
    let words: Vec<String> = super::pages::rows(&page, HEADING)
        .iter()
        .flat_map(|row| row[0].split('`').skip(1).step_by(2))
        .map(str::to_lowercase)
        .collect();
    assert!(words.len() > 20, "{} words in docs/style.md", words.len());
    words
}

/// Returns the listed words that occur in a text; a line break counts as a blank.
pub(crate) fn find(text: &str, listed: &[String]) -> Vec<FoundWord> {
    let plain: String = text
        .chars()
        .map(|c| match c {
            '\n' => ' ',
            c => c.to_ascii_lowercase(),
        })
        .collect();
    let mut found = Vec::new();
    for word in listed {
        for (at, _) in plain.match_indices(word.as_str()) {
            let before = plain[..at].chars().next_back();
            let after = &plain[at + word.len()..];
            let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let ends_open = word.ends_with(char::is_alphanumeric) && is_part(after.chars().next());
            if !is_part(before) && !ends_open && !after.trim_start().starts_with("than") {
                found.push(FoundWord {
                    line: text[..at].matches('\n').count() + 1,
                    word: word.clone(),
                });
            }
        }
    }
    found.sort_by_key(|found| found.line);
    found
}
