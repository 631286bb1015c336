//! Keeps a built kernel object with the code, and the record of what it was built from.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use super::{Built, PROGRAM, TARGET, kept};
use crate::{package::Apt, setup, shell};

/// The first lines of the record.
const HEAD: &str = "# What knock.o was built from. Both files are written by: cargo xtask build-ebpf --keep\n\
                    # After a conflict, take either side and run that.\n";

/// Returns the directory of the kept object.
pub fn directory() -> PathBuf {
    shell::workspace().join("knock-user").join(kept::DIRECTORY)
}

/// Returns the kept object, if it was built from the sources of this workspace.
///
/// # Errors
/// It is out of date; the error names the first difference.
pub fn fresh() -> Result<PathBuf> {
    kept::check(shell::workspace())?;
    Ok(directory().join(kept::OBJECT))
}

/// Prepares for a build of `knock-user`: installs the tools only if the kept kernel object is out of date.
///
/// # Errors
/// Something can't be installed, or a server can't be reached.
pub fn prepare(sh: &Shell, apt: &Apt<'_>) -> Result<()> {
    match fresh() {
        Ok(_) => println!("kernel object: the kept one is up to date"),
        Err(stale) => {
            println!("kernel object: {stale:#}");
            setup::run(sh, apt)?;
        }
    }
    Ok(())
}

/// Returns the compiler and linker that built the kept object, as its record names them.
///
/// # Errors
/// There is no record.
pub fn compiler() -> Result<String> {
    let path = directory().join(kept::RECORD);
    let record =
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = record.lines();
    let line = lines.find_map(|line| line.strip_prefix("compiler "));
    Ok(line.unwrap_or_default().to_owned())
}

/// Keeps a built object. Returns whether that changed anything.
///
/// # Errors
/// A file can't be read or written.
pub fn keep(sh: &Shell, built: &Built) -> Result<bool> {
    let object =
        fs::read(&built.path).with_context(|| format!("reading {}", built.path.display()))?;
    let record = text(sh, built, &object)?;
    let directory = directory();
    sh.create_dir(&directory)?;
    let mut is_changed = false;
    for (name, content) in [(kept::OBJECT, object), (kept::RECORD, record.into_bytes())] {
        let path = directory.join(name);
        if fs::read(&path).ok().as_ref() != Some(&content) {
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
            is_changed = true;
        }
    }
    Ok(is_changed)
}

fn text(sh: &Shell, built: &Built, object: &[u8]) -> Result<String> {
    let root = shell::workspace();
    let mut text = format!(
        "{HEAD}compiler {}\nobject {}\nprofile {}\n",
        built.compiler,
        kept::sha256(object),
        kept::profile(root)?
    );
    for name in crates(sh)? {
        text += &format!("crate {name}\n");
    }
    for source in sources(&built.path, root)? {
        let path = root.join(&source);
        let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        text += &format!("source {} {source}\n", kept::sha256(&content));
    }
    Ok(text)
}

/// Returns the crates from the registry that are linked, with their versions. Macros are left out: many crates have the
/// same ones, and a new version of them seldom makes another object. The test that builds the object again finds that.
fn crates(sh: &Shell) -> Result<BTreeSet<String>> {
    let tree = shell::cargo(sh)
        .args([
            "tree",
            "--package",
            PROGRAM.name,
            "--target",
            TARGET,
            "--locked",
        ])
        .args([
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .quiet();
    let tree = tree
        .read()
        .context("reading the dependencies of the object")?;
    let names = tree.lines().filter_map(|line| {
        // "aya-ebpf v0.2.1", "knock-common v0.1.0 (/path)"
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split(' ').next()?;
        Some(format!("{name} {version}"))
    });
    Ok(names.filter(|name| !name.starts_with("knock-")).collect())
}

/// Returns the sources that the compiler read, below the workspace, and the manifests of their packages.
fn sources(object: &Path, root: &Path) -> Result<BTreeSet<String>> {
    let list = object.with_extension("d");
    let text = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let prefix = format!("{}/", root.display());
    let mut sources: BTreeSet<String> = text
        .split_whitespace()
        .filter_map(|path| path.strip_prefix(&prefix))
        .filter(|path| path.ends_with(".rs"))
        .map(str::to_owned)
        .collect();
    ensure!(!sources.is_empty(), "{} names no sources", list.display());
    sources.extend(
        PROGRAM
            .directories
            .iter()
            .map(|name| format!("{name}/Cargo.toml")),
    );
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str =
        "[workspace.dependencies]\nserde = \"1\"\n\n[profile.ebpf]\nlto = \"fat\"\n";
    const LOCK: &str = "[[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\n";
    const SOURCE: &str = "knock-common/src/judge.rs";
    const OBJECT: &str = "knock-user/object/knock.o";
    const RECORD: &str = "knock-user/object/knock.origin";

    /// Returns a workspace whose kept object is up to date.
    fn workspace() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        for (path, text) in [
            ("Cargo.toml", MANIFEST),
            ("Cargo.lock", LOCK),
            (SOURCE, "fn judge() {}"),
            (OBJECT, "ELF"),
        ] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        let record = format!(
            "{HEAD}compiler rustc\nobject {}\nprofile {}\ncrate aya-ebpf 0.2.1\nsource {} {SOURCE}\n",
            kept::sha256(b"ELF"),
            kept::profile(root).unwrap(),
            kept::sha256(b"fn judge() {}")
        );
        fs::write(root.join(RECORD), record).unwrap();
        place
    }

    #[test]
    fn a_kept_object_is_used_only_if_nothing_that_it_was_built_from_has_changed() {
        type Row = (
            &'static str,
            &'static str,
            Option<(&'static str, &'static str)>,
            Option<&'static str>,
        );
        let table: [Row; 12] = [
            ("nothing has changed", "Cargo.toml", None, None),
            (
                "another dependency has changed",
                "Cargo.toml",
                Some(("serde = \"1\"", "serde = \"2\"")),
                None,
            ),
            (
                "a comment in the profile has changed",
                "Cargo.toml",
                Some(("lto", "# why\nlto")),
                None,
            ),
            (
                "the profile has changed",
                "Cargo.toml",
                Some(("fat", "thin")),
                Some("a profile in Cargo.toml differs"),
            ),
            (
                "a crate has changed",
                "Cargo.lock",
                Some(("0.2.1", "0.2.2")),
                Some("the version of the crate aya-ebpf"),
            ),
            (
                "a source has changed",
                SOURCE,
                Some(("{}", "{ }")),
                Some("knock-common/src/judge.rs differs"),
            ),
            (
                "the object is of another record",
                OBJECT,
                Some(("ELF", "FLE")),
                Some("the object differs"),
            ),
            (
                "the record names no source",
                RECORD,
                Some(("source", "# source")),
                Some("names no sources"),
            ),
            (
                "the record has a conflict",
                RECORD,
                Some(("object", "<<<<<<< HEAD\nobject")),
                Some("the line `<<<<<<< HEAD`"),
            ),
            (
                "there is no record",
                RECORD,
                Some(("", "")),
                Some("knock.origin"),
            ),
            (
                "there is no object",
                OBJECT,
                Some(("", "")),
                Some("knock.o"),
            ),
            (
                "a source is missing",
                SOURCE,
                Some(("", "")),
                Some("judge.rs"),
            ),
        ];
        for (name, path, change, expected) in table {
            let place = workspace();
            let path = place.path().join(path);
            match change {
                None => {}
                Some(("", "")) => fs::remove_file(&path).unwrap(),
                Some((from, to)) => {
                    let text = fs::read_to_string(&path).unwrap();
                    assert!(text.contains(from), "{name}");
                    fs::write(&path, text.replacen(from, to, 1)).unwrap();
                }
            }
            let found = kept::check(place.path()).map_err(|why| format!("{why:#}"));
            match expected {
                None => assert_eq!(found, Ok(()), "{name}"),
                Some(part) => {
                    let why = found.unwrap_err();
                    assert!(why.contains(part), "{name}: {why}");
                }
            }
        }
    }
}
