//! Single packet authorization, from the client to the door.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{fs, path::PathBuf, process::Command};

/// A client that shares no code with the crates.
fn oracle() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("oracle/spa.py")
}

/// The vectors, from which the tests of the crates read, too, are what Python's standard library makes.
#[test]
fn an_independent_client_makes_the_same_packets() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../knock-common/tests/spa_vectors.txt");
    let mut python = Command::new("python3");
    python.arg(oracle()).arg("vectors").arg(&path);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let made = String::from_utf8(output.stdout).unwrap();
    let vectors = fs::read_to_string(&path).unwrap();
    let lines = vectors.lines().filter(|line| !line.starts_with('#'));
    let expected = lines.map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        format!("{} | {}", cells[0], cells[cells.len() - 1])
    });
    let made: Vec<&str> = made.lines().collect();
    assert_eq!(made, expected.collect::<Vec<_>>());
}
