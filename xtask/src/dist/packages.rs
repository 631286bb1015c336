//! Packages of distributions: their content is listed in the manifests of `knock-user` and `knock-fleet`.

use std::path::Path;

use anyhow::Result;
use xshell::Shell;

use super::{Architecture, Release};
use crate::shell;

/// Writes the `.deb`, of the version in Cargo.toml or of another.
///
/// # Errors
/// cargo-deb fails.
pub(super) fn deb(
    sh: &Shell,
    release: &Release,
    package: &str,
    architecture: Architecture,
    version: Option<&str>,
    to: &Path,
) -> Result<()> {
    let deb = shell::cargo(sh)
        .env("SOURCE_DATE_EPOCH", release.date.to_string())
        .args([
            "deb",
            "--package",
            package,
            "--no-build",
            "--no-strip",
            "--quiet",
        ])
        .args(["--no-dbgsym", "--target", architecture.target(), "--output"])
        .arg(to);
    let deb = match version {
        Some(version) => deb.args(["--deb-version", &format!("{version}-1")]),
        None => deb,
    };
    shell::run_quietly("cargo deb", deb)
}

/// Writes the `.rpm`, of the version in Cargo.toml or of another.
///
/// # Errors
/// cargo-generate-rpm fails.
pub(super) fn rpm(
    sh: &Shell,
    release: &Release,
    package: &str,
    architecture: Architecture,
    version: Option<&str>,
    to: &Path,
) -> Result<()> {
    let rpm = shell::cargo(sh)
        .args(["generate-rpm", "--package", package])
        .args(["--arch", architecture.linux(), "--auto-req", "disabled"])
        .args(["--source-date", &release.date.to_string(), "--output"])
        .arg(to);
    let rpm = match version {
        Some(version) => rpm.args(["--set-metadata", &format!("version = \"{version}\"")]),
        None => rpm,
    };
    shell::run_quietly("cargo generate-rpm", rpm)
}
