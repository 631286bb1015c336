//! What is said about files that are wrong, or unwise: each `golden/*.toml` has a `.txt` beside it.
//!
//! `KNOCK_BLESS=1 cargo test -p knock-user --test config` writes the texts anew.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use knock_user::{config, host::Host};

/// What is said about a file.
fn told(path: &Path) -> String {
    let file = path.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(path).unwrap();
    let mut told = String::new();
    match config::parse(&text, file) {
        Err(problems) => told += &format!("{problems}\n"),
        Ok(checked) => {
            for warning in checked.warnings(&Host::default()) {
                told += &format!("{}\n", warning.told("warning", file));
            }
        }
    }
    told
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The lines of two texts, with `-` before those only in the first and `+` before those only in the
/// second.
fn diff(wanted: &str, found: &str) -> String {
    let only = |these: &str, others: &str, sign: &str| -> String {
        let others: Vec<&str> = others.lines().collect();
        let only = these.lines().filter(|line| !others.contains(line));
        only.map(|line| format!("  {sign} {line}\n")).collect()
    };
    only(wanted, found, "-") + &only(found, wanted, "+")
}

#[test]
fn golden_texts() {
    let bless = env::var_os("KNOCK_BLESS").is_some();
    let mut different = String::new();
    for path in files("tests/golden") {
        let found = told(&path);
        let golden = path.with_extension("txt");
        if bless {
            fs::write(&golden, &found).unwrap();
        }
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        if wanted != found {
            different += &format!("{}:\n{}", path.display(), diff(&wanted, &found));
        }
    }
    assert!(
        different.is_empty(),
        "not as in the golden texts:\n{different}"
    );
}
