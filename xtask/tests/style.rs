//! The project's language follows docs/style.md: words, length of lines and pages, commit subjects.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

#[path = "prose/doc_comments.rs"]
mod doc_comments;
#[path = "../../knock-common/tests/pages/mod.rs"]
mod pages;
#[path = "prose/mod.rs"]
mod prose;
#[path = "../../knock-common/tests/pages/words.rs"]
mod words;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pages::{pages, root};
use toml::Table;

/// The longest line, in characters; tables of Markdown have longer rows.
const COLUMNS: usize = 120;
/// The most lines of a page.
const LINES: usize = 250;
/// The longest subject of a commit, in characters.
const SUBJECT: usize = 72;

#[test]
fn no_page_has_a_listed_word() {
    let listed = words::listed();
    let mut faults = Vec::new();
    for page in pages() {
        for found in words::find(&prose::markdown(&page.text), &listed) {
            faults.push(format!(
                "{}:{}: {}",
                page.path.display(),
                found.line,
                found.word
            ));
        }
    }
    assert!(
        faults.is_empty(),
        "see docs/style.md\n{}",
        faults.join("\n")
    );
}

#[test]
fn no_source_file_has_a_listed_word() {
    let listed = words::listed();
    let mut faults = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        for found in words::find(&prose::source(&path, &text), &listed) {
            faults.push(format!("{}:{}: {}", path.display(), found.line, found.word));
        }
    }
    assert!(
        faults.is_empty(),
        "see docs/style.md\n{}",
        faults.join("\n")
    );
}

/// The other words for clients and sources, which docs/style.md lists, are in no identifier.
#[test]
fn no_code_has_another_word_for_a_client() {
    let style = fs::read_to_string(root().join("docs/style.md")).unwrap();
    let row = style
        .lines()
        .find_map(|line| line.strip_prefix("| client, source | "))
        .unwrap();
    let others: Vec<_> = row.split(" | ").next().unwrap().split(", ").collect();
    let mut faults = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        for (index, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            if let Some(word) = others.iter().find(|&word| line.contains(word)) {
                faults.push(format!("{}:{}: {word}", path.display(), index + 1));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "see the terms of docs/style.md\n{}",
        faults.join("\n")
    );
}

#[test]
fn doc_comments_of_functions_begin_with_a_verb() {
    let mut faults = Vec::new();
    for path in sources() {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            for (line, first) in doc_comments::without_verb(&text) {
                faults.push(format!("{}:{line}: {first}", path.display()));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "see the form of doc comments in docs/style.md\n{}",
        faults.join("\n")
    );
}

#[test]
fn the_rule_for_doc_comments_finds_functions_without_a_verb() {
    for (name, text, expected) in [
        ("a verb", "/// Returns it.\nfn f() {}\n", vec![]),
        (
            "a reference",
            "/// See [`f`].\npub(crate) fn f() {}\n",
            vec![],
        ),
        (
            "a comma",
            "/// Binds, and listens.\nasync fn f() {}\n",
            vec![],
        ),
        ("a noun", "/// The port.\npub const fn f() {}\n", vec![1]),
        (
            "behind attributes",
            "\n/// Whether.\n/// More.\n#[inline]\n\n    pub(super) fn f() {}\n",
            vec![2],
        ),
        ("a test", "/// The port.\n#[test]\nfn f() {}\n", vec![]),
        ("a type", "/// The port.\npub struct S;\n", vec![]),
    ] {
        let found = doc_comments::without_verb(text);
        let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, expected, "{name}");
    }
}

#[test]
fn no_line_is_longer_than_120_columns() {
    let mut faults = Vec::new();
    for path in files() {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        let is_code = path.extension().is_some_and(|extension| extension == "rs");
        for (index, line) in text.lines().enumerate() {
            // Nothing wraps rows of tables, texts in quotes, and what a test expects as output.
            let is_row = is_page && line.starts_with('|');
            let is_text = is_code && line.contains('"') && !line.trim_start().starts_with("//")
                || !is_code
                    && !is_page
                    && path.components().any(|part| part.as_os_str() == "tests");
            if line.chars().count() > COLUMNS && !is_row && !is_text {
                faults.push(format!("{}:{}", path.display(), index + 1));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "longer than {COLUMNS} columns:\n{}",
        faults.join("\n")
    );
}

#[test]
fn no_page_is_longer_than_250_lines() {
    for page in pages() {
        let count = page.text.lines().count();
        assert!(count <= LINES, "{}: {count} lines", page.path.display());
    }
}

/// Only commits that are not pushed yet can still be changed.
#[test]
fn subjects_of_unpushed_commits_follow_the_rule() {
    let log = Command::new("git")
        .args(["log", "--format=%s", "@{upstream}..HEAD"])
        .current_dir(root())
        .output();
    let Some(log) = log.ok().filter(|log| log.status.success()) else {
        println!("no git, or no upstream branch: no subject was checked");
        return;
    };
    let scopes = scopes();
    let subjects = String::from_utf8(log.stdout).unwrap();
    let faults: Vec<_> = subjects
        .lines()
        .filter_map(|subject| Some(format!("{subject:?} {}", fault(subject, &scopes)?)))
        .collect();
    assert!(
        faults.is_empty(),
        "see docs/style.md#commits\n{}",
        faults.join("\n")
    );
}

#[test]
fn the_rule_for_subjects_finds_faults() {
    let scopes = BTreeSet::from([
        "knock-common".to_owned(),
        "docs".to_owned(),
        "tests".to_owned(),
    ]);
    let long = format!("docs: add {}", "x".repeat(SUBJECT));
    let table = [
        ("crate and verb", "knock-common: refuse fragments", None),
        ("several crates", "knock-common, tests: count frames", None),
        ("a revert", "Revert \"docs: add a page\"", None),
        ("no crate", "refuse fragments", Some("begins with no crate")),
        (
            "unknown crate",
            "daemon: refuse fragments",
            Some("begins with no crate"),
        ),
        (
            "upper case",
            "docs: Add a page",
            Some("has no verb in lower case"),
        ),
        ("article", "docs: the index", Some("has no imperative verb")),
        (
            "third person",
            "docs: adds a page",
            Some("has no imperative verb"),
        ),
        ("past", "docs: added a page", Some("has no imperative verb")),
        ("verb in s", "tests: pass the option", None),
        (
            "full stop",
            "docs: add a page.",
            Some("ends with a full stop"),
        ),
        ("too long", &long, Some("is longer than 72 characters")),
    ];
    for (name, subject, expected) in table {
        assert_eq!(fault(subject, &scopes), expected, "{name}: {subject}");
    }
}

#[test]
fn prose_is_what_people_read() {
    let rust =
        "//! Ends.\nfn f() { let word = \"a word\"; } // ends\n#[test]\nfn what_a_word_is() {}\n";
    let page = "# A\n\nSee `word` and [word](word.md).\n\n```sh\nword\n```\n";
    let listed = ["word".to_owned()];
    let lines = |text: String| {
        words::find(&text, &listed)
            .iter()
            .map(|found| found.line)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lines(prose::source(Path::new("a.rs"), rust)),
        [2, 4],
        "code"
    );
    assert_eq!(lines(prose::markdown(page)), [3], "page");
    let listed = ["is no less".to_owned()];
    let count = |text| words::find(text, &listed).len();
    assert_eq!(
        count("a door that is no\nless, and is no less than a door"),
        1
    );
}

/// Returns the faults of the subject of a commit.
fn fault(subject: &str, scopes: &BTreeSet<String>) -> Option<&'static str> {
    /// Words that a subject in the imperative does not begin with.
    const NO_VERBS: [&str; 22] = [
        "a", "all", "an", "each", "every", "how", "it", "its", "no", "one", "some", "that", "the",
        "there", "these", "this", "what", "when", "where", "which", "who", "why",
    ];
    /// Endings of verbs in other forms, and verbs that have them in the imperative.
    const FORMS: [(&str, &[&str]); 3] = [
        (
            "s",
            &[
                "access", "address", "bypass", "compress", "cross", "discuss", "focus", "guess",
                "pass", "process",
            ],
        ),
        (
            "ed",
            &[
                "embed", "exceed", "feed", "need", "proceed", "seed", "speed",
            ],
        ),
        ("ing", &["bring", "ping", "string"]),
    ];
    if subject.chars().count() > SUBJECT {
        return Some("is longer than 72 characters");
    }
    if subject.starts_with("Revert \"") {
        return None;
    }
    let Some((scope, rest)) = subject.split_once(": ") else {
        return Some("begins with no crate");
    };
    if !scope.split(", ").all(|scope| scopes.contains(scope)) {
        return Some("begins with no crate");
    }
    if rest.ends_with('.') {
        return Some("ends with a full stop");
    }
    let verb = rest.split(' ').next().unwrap_or_default();
    if !verb.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Some("has no verb in lower case");
    }
    let is_other_form = FORMS
        .iter()
        .any(|(ending, verbs)| verb.ends_with(ending) && !verbs.contains(&verb));
    (NO_VERBS.contains(&verb) || is_other_form).then_some("has no imperative verb")
}

/// Returns the allowed prefixes of a subject: the packages of the workspace, and names for what is in none.
fn scopes() -> BTreeSet<String> {
    let manifest: Table = fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|member| member.as_str().unwrap().to_owned())
        .chain(["ci", "dist", "docs", "examples", "fuzz", "workspace"].map(str::to_owned))
        .collect()
}

/// Returns the source files: all but pages.
fn sources() -> Vec<PathBuf> {
    let mut sources = files();
    sources.retain(|path| path.extension().is_none_or(|extension| extension != "md"));
    sources
}

/// Returns all files that people write, without what is generated.
fn files() -> Vec<PathBuf> {
    const ENDINGS: [&str; 6] = ["rs", "toml", "sh", "md", "service", "sysusers"];
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                let is_ours =
                    name == ".ci" || name == ".cargo" || !name.starts_with('.') && name != "target";
                directories.extend(is_ours.then_some(path));
                continue;
            }
            let ending = path.extension().and_then(|extension| extension.to_str());
            let is_script = path.starts_with(".ci");
            if is_script || ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 300, "{} files", found.len());
    found
}
