//! `cargo xtask run` and `demo`: building a program and becoming it.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Error, Result};
use xshell::{Cmd, Shell};

use crate::shell;

/// Builds knock-user and becomes it; returns only on failure.
pub fn run(sh: &Shell, args: &[String]) -> Error {
    become_it(
        cargo_run(sh)
            .args(["--package", "knock-user", "--"])
            .args(args),
    )
}

/// Builds the demo with the programs that it shows, and becomes it; returns only on failure.
pub fn demo(sh: &Shell) -> Error {
    if let Err(error) = build_programs(sh) {
        return error;
    }
    become_it(cargo_run(sh).args(["--release", "--package", "knock-tests", "--bin", "demo"]))
}

/// Builds what measures, with the programs that are measured, and becomes it with these arguments;
/// returns only on failure.
pub fn bench(sh: &Shell, args: &[String]) -> Error {
    if let Err(error) = build_programs(sh) {
        return error;
    }
    become_it(
        cargo_run(sh)
            .args(["--release", "--package", "knock-bench", "--"])
            .args(args),
    )
}

/// Builds the programs that are installed.
///
/// # Errors
/// They don't build.
pub fn build_programs(sh: &Shell) -> Result<()> {
    let build = shell::cargo(sh).args(["build", "--release"]);
    build
        .args(["--package", "knock-user", "--package", "knock-client"])
        .run()
        .context("building knock-user and knock-client")
}

/// Builds as the user, so that no file below `target` ends up root's, and runs the result as root.
fn cargo_run(sh: &Shell) -> Cmd<'_> {
    let cmd = shell::cargo(sh).arg("run");
    if shell::is_root() {
        cmd
    } else {
        cmd.args(["--config", "target.'cfg(unix)'.runner = 'sudo'"])
    }
}

/// Replaces this process: a signal then reaches the program itself and nobody waits in between.
fn become_it(cmd: Cmd<'_>) -> Error {
    let line = cmd.to_string();
    Error::new(Command::from(cmd).exec()).context(format!("running `{line}`"))
}
