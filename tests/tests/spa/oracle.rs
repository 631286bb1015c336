//! A client in Python's standard library, which shares no code with the crates.

use std::{fs, path::PathBuf, process::Command};

use knock_tests::namespace::text;

/// The crates' own tests read the same vectors.
#[test]
fn an_independent_client_makes_the_same_packets_and_answers() {
    for (what, file) in [
        ("vectors", "spa_vectors.txt"),
        ("answers", "spa_answers.txt"),
    ] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let path = path.join("../knock-common/tests").join(file);
        let made = run(&[what, path.to_str().unwrap()]);
        let vectors = fs::read_to_string(&path).unwrap();
        let lines = vectors.lines().filter(|line| !line.starts_with('#'));
        let expected = lines.map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            format!("{} | {}", cells[0], cells[cells.len() - 1])
        });
        let made: Vec<&str> = made.lines().collect();
        assert_eq!(made, expected.collect::<Vec<_>>(), "{what}");
    }
}

/// Returns the command that runs the client with these words.
pub(crate) fn oracle(words: &[&str]) -> Command {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("oracle/spa.py");
    let mut command = Command::new("python3");
    command.arg(script).args(words);
    command
}

/// Runs it to the end and returns what it prints.
#[track_caller]
pub(crate) fn run(words: &[&str]) -> String {
    let output = oracle(words).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}
