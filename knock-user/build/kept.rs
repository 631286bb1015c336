//! The kernel object that is kept with the code, and whether it was built from the sources beside it.
//!
//! Its record names what went into it: each source file with its SHA-256, the crates with their versions, the profile.
//! `cargo xtask build-ebpf --keep` writes both.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

/// The directory of object and record in the package.
pub(crate) const DIRECTORY: &str = "object";

/// The object, an ELF file.
pub(crate) const OBJECT: &str = "knock.o";

/// The record of its origin.
pub(crate) const RECORD: &str = "knock.origin";

/// The tables of the workspace's manifest with the compiler's options.
const PROFILES: [&str; 2] = ["[profile.release]", "[profile.ebpf]"];

/// Checks that the kept object was built from the sources of this workspace.
///
/// # Errors
/// It was not, or a file can't be read: the error names the first difference.
pub(crate) fn check(root: &Path) -> Result<()> {
    let directory = root.join("knock-user").join(DIRECTORY);
    let record = read(&directory.join(RECORD))?;
    let record = String::from_utf8_lossy(&record);
    let lock = read(&root.join("Cargo.lock"))?;
    let lock = String::from_utf8_lossy(&lock);
    let mut number_of_sources = 0;
    for line in record.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split(' ').collect();
        let (is_same, what) = match words[..] {
            ["object", hash] => (
                sha256(&read(&directory.join(OBJECT))?) == hash,
                "the object".to_owned(),
            ),
            ["profile", hash] => (profile(root)? == hash, "a profile in Cargo.toml".to_owned()),
            ["crate", name, version] => {
                let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
                (
                    lock.contains(&entry),
                    format!("the version of the crate {name}"),
                )
            }
            ["source", hash, path] => {
                number_of_sources += 1;
                let same = sha256(&read(&root.join(path))?) == hash;
                (same, path.to_owned())
            }
            ["compiler", ..] => continue,
            _ => (false, format!("the line `{line}`")),
        };
        ensure!(
            is_same,
            "the kept kernel object is out of date: {what} differs from {RECORD}"
        );
    }
    ensure!(
        number_of_sources > 0,
        "the kept kernel object is out of date: {RECORD} names no sources"
    );
    Ok(())
}

/// Returns the hash of the compiler's options in the workspace's manifest.
pub(crate) fn profile(root: &Path) -> Result<String> {
    let manifest = read(&root.join("Cargo.toml"))?;
    let manifest = String::from_utf8_lossy(&manifest);
    let mut is_inside = false;
    let mut options = String::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            is_inside = PROFILES.contains(&line);
        }
        if is_inside && !line.is_empty() && !line.starts_with('#') {
            options += line;
            options.push('\n');
        }
    }
    Ok(sha256(options.as_bytes()))
}

/// Returns the SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _never_fails = write!(text, "{byte:02x}");
            text
        })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
