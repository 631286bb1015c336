//! Debian packages that are unpacked below `target` and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::Shell;

use crate::{package::Apt, shell};

/// Downloads packages and what they need, as far as `is_wanted`, and unpacks them into a new directory.
///
/// # Errors
/// A package is unavailable, or a file can't be written.
pub(super) fn unpack(
    sh: &Shell,
    apt: &Apt<'_>,
    packages: &[&str],
    is_wanted: impl Fn(&str) -> bool,
    place: &Path,
) -> Result<()> {
    ensure!(Apt::is_here(), "this system has no apt-get");
    // As on a system without any package, so that no installed one conflicts.
    let simulate = sh
        .cmd("apt-get")
        .args(["-o", "Dir::State::status=/dev/null", "--simulate"])
        .args(["install", "--no-install-recommends"])
        .args(packages);
    let plan = simulate.quiet().ignore_stderr().read().unwrap_or_default();
    let wanted: Vec<_> = planned(&plan).filter(|name| is_wanted(name)).collect();
    let names = packages.join(", ");
    if wanted.is_empty() {
        match apt.stale() {
            Some(why) => bail!(why),
            None => bail!("apt knows no package {names}"),
        }
    }
    // An interruption must not leave a directory that looks complete.
    let half = place.with_extension("half");
    remove(&half)?;
    remove(place)?;
    let archives = half.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("making {}", archives.display()))?;
    let here = sh.clone();
    here.change_dir(&archives);
    println!("{names}: downloading {} packages", wanted.len());
    apt.download(&here, &wanted)?;
    for archive in here.read_dir(&archives)? {
        let unpack = here.cmd("dpkg-deb").arg("-x").args([&archive, &half]);
        shell::run_quietly(&format!("unpacking {names}"), unpack)?;
    }
    remove(&archives)?;
    fs::rename(&half, place).with_context(|| format!("keeping {}", place.display()))
}

/// Returns the packages of a plan such as `Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])`.
pub(super) fn planned(plan: &str) -> impl Iterator<Item = &str> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
}

/// Removes a directory, if it is there.
///
/// # Errors
/// It can't be removed.
pub(super) fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("removing {}", directory.display()))?;
    }
    Ok(())
}

/// Returns the directory that is kept from one run to the next.
pub(super) fn directory() -> PathBuf {
    shell::target_dir().join("kernels")
}
