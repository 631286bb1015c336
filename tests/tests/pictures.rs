//! The pictures in docs show what the programs print now.

use std::{fs, path::Path, process::Command};

use knock_tests::binary::binaries;
use tempfile::TempDir;

/// `cargo xtask pictures` draws them again.
#[test]
fn pictures_are_as_old_as_the_programs() {
    let directory = TempDir::new().unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let output = Command::new("bash")
        .arg(docs.join("pictures.sh"))
        .arg(directory.path())
        .env("KNOCK_PROGRAMS", binaries().user.parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    for (name, is_compared) in [
        // Times differ, and nothing else.
        ("console.svg", (|_: &str| true) as fn(&str) -> bool),
        // Of a view that moves, headings, state and keys.
        ("top.svg", |line: &str| {
            [
                "in force", "eth0 ", "grants ", "REASON", "ATTEMPTS", "EVENTS", "quit",
            ]
            .iter()
            .any(|part| line.contains(part) && !line.contains(" on eth0"))
        }),
    ] {
        let lines = |directory: &Path| -> Vec<String> {
            let text = fs::read_to_string(directory.join(name)).unwrap();
            let lines = text.lines().map(timeless);
            lines.filter(|line| is_compared(line)).collect()
        };
        let (kept, drawn) = (lines(&docs), lines(directory.path()));
        assert!(kept.len() > 5, "{name}: {kept:#?}");
        assert_eq!(
            kept, drawn,
            "{name} is old: draw it again with `cargo xtask pictures`"
        );
    }
}

/// Returns a line with a letter in place of each number that depends on the time.
fn timeless(line: &str) -> String {
    let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    for place in 0..words.len() {
        let next = words.get(place + 1).cloned().unwrap_or_default();
        let before = place
            .checked_sub(1)
            .and_then(|place| words.get(place).cloned());
        let before = before.unwrap_or_default();
        let word = &mut words[place];
        let is_measured = next.starts_with("ms") || next.starts_with("µs");
        // `12:00:01.123`, behind the mark-up of the line or alone.
        let time = word.rfind('>').map_or(0, |at| at + 1);
        if word[time..].matches(':').count() == 2 {
            word.replace_range(time.., "TIME");
        } else if is_measured && word.parse::<f64>().is_ok()
            || ["pid", "flows"].contains(&before.as_str())
        {
            "N".clone_into(word);
        }
    }
    words.join(" ")
}
