//! `cargo xtask dist --twice`: builds everything that is published again, from a clone in another directory, and
//! compares all bytes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use crate::{
    dist::{self, Architecture},
    package::Apt,
    report::{Row, RunReport},
    shell,
    tools::{self, Verb},
};

/// Finds or installs what `dist` starts.
///
/// # Errors
/// Something can't be installed.
pub fn get(sh: &Shell, apt: &Apt<'_>) -> Result<()> {
    tools::get(apt, Verb::Dist)?;
    dist::prepare(sh, &Architecture::ALL)
}

/// Builds twice, and adds one row.
///
/// # Errors
/// A build fails, or the workspace has changes that a clone would not have.
pub fn test(sh: &Shell, report: &mut RunReport) -> Result<()> {
    let began = Instant::now();
    let different = compare(sh, &Architecture::ALL)?;
    for line in &different {
        println!("dist --twice: {line}");
    }
    report.add([Row::Step {
        name: "dist --twice".to_owned(),
        passed: different.is_empty(),
        seconds: began.elapsed().as_secs_f64(),
    }]);
    Ok(())
}

/// Builds in this directory and in another one; returns a line for each file that differs. The other directory stays
/// only if there is one.
///
/// # Errors
/// A build fails, or the workspace has changes that a clone would not have.
pub fn compare(sh: &Shell, architectures: &[Architecture]) -> Result<Vec<String>> {
    let changed = git(sh)
        .args(["status", "--porcelain", "--untracked-files=no"])
        .quiet()
        .read()
        .context("the workspace is not a git repository, so there is nothing to clone")?;
    ensure!(
        changed.is_empty(),
        "a clone would not have the changes of these files: commit or stash them first:\n{changed}"
    );
    let first = dist::run(sh, architectures)?;
    let place = shell::target_dir().join("twice");
    let second = elsewhere(sh, architectures, &place)?;
    let different = differences(&sums(&first)?, &sums(&second)?);
    if different.is_empty() {
        sh.remove_path(&place)?;
    }
    Ok(different)
}

/// Builds in a clone below a directory; returns the directory of what is built.
fn elsewhere(sh: &Shell, architectures: &[Architecture], below: &Path) -> Result<PathBuf> {
    let place = below.join("a directory with another name");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))?;
    }
    let clone = git(sh)
        .args(["clone", "--quiet", "--no-hardlinks"])
        .arg(shell::workspace())
        .arg(&place);
    shell::run_quietly("cloning", clone)?;
    let there = sh.clone();
    there.change_dir(&place);
    let mut build = shell::inner_cargo(&there).env_remove("CARGO_TARGET_DIR");
    build = build.args(["xtask", "dist"]);
    if let [architecture] = architectures {
        build = build.args(["--arch", architecture.debian()]);
    }
    shell::watch("building again", build, |_| {})?
        .or_else(|| "building again failed: the messages are above".to_owned())?;
    Ok(place.join("target/dist"))
}

fn git(sh: &Shell) -> xshell::Cmd<'_> {
    sh.cmd("git").args(["-c", "safe.directory=*"])
}

/// Returns the sums of all files of a directory, by their names.
fn sums(directory: &Path) -> Result<BTreeMap<String, String>> {
    let reading = || format!("reading {}", directory.display());
    let entries = fs::read_dir(directory).with_context(reading)?;
    let sum = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok((name.into_owned(), crate::ebpf::sha256(&content)))
    };
    entries
        .map(|entry| sum(entry.with_context(reading)?.path()))
        .collect()
}

/// Returns a line for each file that is in one list only, or has another sum.
fn differences(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = first.keys().chain(second.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (first.get(name), second.get(name)) {
            (Some(one), Some(other)) if one == other => None,
            (Some(_), Some(_)) => Some(format!("{name} has other bytes in another directory")),
            (Some(_), None) | (None, Some(_)) => Some(format!("{name} was built only once")),
            (None, None) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named() {
        let files = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            let list = list.iter();
            list.map(|(name, sum)| ((*name).to_owned(), (*sum).to_owned()))
                .collect()
        };
        let first = files(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(differences(&first, &first), [""; 0]);
        let second = files(&[("a", "1"), ("b", "9"), ("d", "4")]);
        let expected = [
            "b has other bytes in another directory",
            "c was built only once",
            "d was built only once",
        ];
        assert_eq!(differences(&first, &second), expected);
    }
}
