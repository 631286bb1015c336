//! The rooms of `src` stand on floors: a room uses only rooms below it, and so does a file in its room.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// From the lowest to the highest, as in ARCHITECTURE.md.
const FLOORS: [&str; 21] = [
    "model",
    "host",
    "compile",
    "strength",
    "kernel",
    "interfaces",
    "sequences",
    "fleet",
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
    "top",
    "tools",
    "cli",
];

#[test]
fn no_room_uses_one_above_it() {
    let mut up = Vec::new();
    for (module, file) in modules() {
        let floor = FLOORS.iter().position(|name| *name == module[0]);
        for used in rooms_used(&module, &code(&file)) {
            let below = FLOORS.iter().position(|name| *name == used);
            if below.is_none() || below > floor {
                up.push(format!("{} uses crate::{used}", file.display()));
            }
        }
    }
    assert!(up.is_empty(), "{}", up.join("\n"));
}

#[test]
fn a_room_is_found_however_a_file_names_it() {
    for (name, module, code, used) in [
        ("its own", "model::text", "use super::problem;", "model"),
        (
            "in an import",
            "model::text",
            "use crate::admin::list;",
            "admin",
        ),
        (
            "in a group",
            "model::text",
            "use crate::{admin::list};",
            "admin",
        ),
        (
            "behind super",
            "model::text",
            "use super::super::admin::list;",
            "admin",
        ),
        (
            "behind self",
            "model",
            "use self::super::admin::list;",
            "admin",
        ),
        ("in code", "model", "super::admin::list::run();", "admin"),
        ("all of them", "model", "use crate::*;", "*"),
        (
            "another name of the root",
            "model",
            "use crate as root;",
            "*",
        ),
    ] {
        let module: Module = module.split("::").map(str::to_owned).collect();
        let found: Vec<_> = rooms_used(&module, code).into_iter().collect();
        assert_eq!(found, [used], "{name}");
    }
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let modules = modules();
    let mut used: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (module, file) in &modules {
        let found = paths(&code(file)).into_iter();
        used.insert(
            module,
            found
                .filter_map(|path| module_of(module, &path, &modules))
                .filter(|other| other != module)
                .collect(),
        );
    }
    // Files that use none of those left are not part of a circle.
    while let Some(free) = used
        .iter()
        .find_map(|(module, others)| others.is_empty().then(|| (*module).clone()))
    {
        used.remove(&free);
        for others in used.values_mut() {
            others.remove(&free);
        }
    }
    // Neither are those that none of those left uses.
    let mut count = 0;
    while count != used.len() {
        count = used.len();
        let targets: BTreeSet<_> = used.values().flatten().cloned().collect();
        used.retain(|module, _| targets.contains(*module));
    }
    let circle: Vec<_> = used
        .iter()
        .map(|(module, others)| {
            let others: Vec<_> = others.iter().map(|other| other.join("::")).collect();
            format!("{} uses {}", module.join("::"), others.join(", "))
        })
        .collect();
    assert!(circle.is_empty(), "{}", circle.join("\n"));
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

/// Returns the rooms that the code of a module names; `*` if it may be any.
fn rooms_used(module: &Module, code: &str) -> BTreeSet<String> {
    let paths = paths(code);
    let named = paths.iter().filter_map(|path| resolve(module, path));
    named
        .map(|(mut base, rest)| {
            base.extend(rest.iter().cloned());
            base.into_iter().find(|name| !name.is_empty())
        })
        .map(|room| room.unwrap_or_else(|| "*".to_owned()))
        .collect()
}

/// The path of a module, without `crate`.
type Module = Vec<String>;

/// Returns the modules of all rooms, with their files.
fn modules() -> BTreeMap<Module, PathBuf> {
    let files = FLOORS.iter().flat_map(|room| files(room));
    let module = |file: &PathBuf| -> Module {
        let path = file.strip_prefix(source()).unwrap().with_extension("");
        let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
        names.filter(|name| name != "mod").collect()
    };
    files.map(|file| (module(&file), file)).collect()
}

/// Returns the code of a file, without comments and tests.
fn code(file: &Path) -> String {
    if file.file_stem().is_some_and(|name| name == "tests") {
        return String::new();
    }
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the module in which a path of another module ends; none if it belongs to another crate.
fn module_of(
    from: &Module,
    path: &[String],
    modules: &BTreeMap<Module, PathBuf>,
) -> Option<Module> {
    let (mut module, names, is_relative) = match resolve(from, path) {
        Some((module, names)) => (module, names, true),
        None => (from.clone(), path, false),
    };
    for name in names {
        let mut inner = module.clone();
        inner.push(name.clone());
        if !modules.contains_key(&inner) {
            break;
        }
        module = inner;
    }
    // A single name may be a variable.
    let is_child = path.len() > 1 && module.len() > from.len();
    ((is_relative || is_child) && modules.contains_key(&module)).then_some(module)
}

/// Returns the module in front of a path's names; `None` if the path begins with none of `crate`, `self` and `super`.
fn resolve<'p>(from: &Module, path: &'p [String]) -> Option<(Module, &'p [String])> {
    let mut module = from.clone();
    let mut names = path;
    while let Some((first, rest)) = names.split_first() {
        match first.as_str() {
            "crate" => module.clear(),
            "super" => drop(module.pop()),
            "self" => {}
            _ => break,
        }
        names = rest;
    }
    (names.len() < path.len()).then_some((module, names))
}

/// Returns the paths in a code, one for each member of a group.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(is_part) {
        let before = &code[..code.len() - rest.len() + at];
        rest = &rest[at..];
        // `pub(super)` and `pub(in path)` use nothing.
        let is_visibility = before.ends_with("pub(");
        rest = match is_visibility {
            true => &rest[rest.find(')').unwrap_or(rest.len())..],
            false => path_at(rest, &[], &mut paths),
        };
    }
    paths
}

/// Adds the paths at the beginning of a code, and returns the code after them.
fn path_at<'c>(code: &'c str, prefix: &[String], paths: &mut Vec<Vec<String>>) -> &'c str {
    let name = name_at(code);
    let mut path = prefix.to_vec();
    if !name.is_empty() {
        path.push(name.clone());
    }
    let rest = &code[name.len()..];
    let Some(inner) = rest.strip_prefix("::") else {
        paths.push(path);
        return rest;
    };
    let Some(mut members) = inner.strip_prefix('{') else {
        return path_at(inner, &path, paths);
    };
    loop {
        members = members.trim_start();
        if let Some(rest) = members.strip_prefix('}') {
            return rest;
        }
        members = path_at(members, &path, paths);
        // Skips ` as name`.
        let end = members.find([',', '}']).unwrap_or(members.len());
        members = members[end..].strip_prefix(',').unwrap_or(&members[end..]);
        if members.is_empty() {
            return members;
        }
    }
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|letter| is_part(*letter)).collect()
}

/// Returns whether a letter is part of a name.
const fn is_part(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}
