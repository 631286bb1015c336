//! The rooms of `src` stand on floors: a room uses only rooms below it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// From the lowest to the highest, as in ARCHITECTURE.md.
const FLOORS: [&str; 19] = [
    "model",
    "host",
    "compile",
    "strength",
    "kernel",
    "interfaces",
    "sequences",
    "config",
    "ledger",
    "commands",
    "console",
    "explain",
    "apply",
    "control",
    "metrics",
    "daemon",
    "admin",
    "tools",
    "cli",
];

#[test]
fn no_room_uses_one_above_it() {
    let mut up = Vec::new();
    for (floor, room) in FLOORS.iter().enumerate() {
        for file in files(room) {
            for used in rooms_used(&file) {
                let below = FLOORS.iter().position(|name| *name == used);
                if below.is_none_or(|below| below > floor) {
                    up.push(format!("{} uses crate::{used}", file.display()));
                }
            }
        }
    }
    assert!(up.is_empty(), "{}", up.join("\n"));
}

#[test]
fn every_room_has_a_floor() {
    let found: BTreeSet<_> = fs::read_dir(source())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !["lib", "main"].contains(&name.as_str()))
        .collect();
    assert_eq!(found, FLOORS.map(str::to_owned).into());
}

#[test]
fn the_picture_in_architecture_names_every_room() {
    let page = fs::read_to_string(source().join("../../ARCHITECTURE.md")).unwrap();
    for room in FLOORS {
        assert!(page.contains(&format!("`{room}`")), "{room}");
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(room: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut rest = vec![source().join(room), source().join(format!("{room}.rs"))];
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            rest.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

/// The rooms that a file names behind `crate::`, outside its tests.
fn rooms_used(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let code = match file.file_stem().is_some_and(|name| name == "tests") {
        true => "",
        false => text.split("#[cfg(test)]\nmod tests {").next().unwrap(),
    };
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .collect();
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => outer_names(group),
            None => vec![name_at(rest)],
        };
        used.extend(names);
    }
    used
}

/// The first name of each member of a group of imports.
fn outer_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut is_start = true;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            ' ' => {}
            _ if is_start => {
                names.push(name_at(&group[at..]));
                is_start = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .collect()
}
