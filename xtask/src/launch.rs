//! `cargo xtask run`, `demo` and `bench`: builds a program, and replaces this process with it.

use std::{os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use anyhow::{Error, Result, ensure};
use xshell::{Cmd, Shell};

use crate::{disk_space, shell};

/// The profile with which programs are compiled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CargoProfile {
    /// The profile of `cargo xtask test`, which builds quickly.
    Dev,
    /// The profile of installed programs.
    Release,
}

impl CargoProfile {
    /// Returns the directory of the built programs.
    pub fn directory(self) -> PathBuf {
        shell::target_dir().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

/// Builds knock-user and becomes it; returns only on failure.
pub fn run(sh: &Shell, args: &[String]) -> Error {
    let cmd = shell::cargo(sh).arg("run");
    // Builds as the user, so that no file below `target` ends up root's.
    let cmd = if shell::is_root() {
        cmd
    } else {
        cmd.args(["--config", "target.'cfg(unix)'.runner = 'sudo'"])
    };
    become_it(cmd.args(["--package", "knock-user", "--"]).args(args))
}

/// Builds a demo with the programs that it shows, and becomes it; returns only on failure.
pub fn demo(sh: &Shell, is_fleet: bool) -> Error {
    disk_space::warn(sh, disk_space::DEMO);
    if !is_fleet {
        return built_and_become(sh, CargoProfile::Dev, ("knock-tests", "demo"), &[]);
    }
    // The daemons start it.
    if let Err(error) = build_programs(sh, CargoProfile::Dev, &[("knock-fleet", "knock-fleet")]) {
        return error;
    }
    built_and_become(sh, CargoProfile::Dev, ("knock-tests", "demo-fleet"), &[])
}

/// Builds the bench and the programs that it measures, and becomes it with these arguments;
/// returns only on failure.
pub fn bench(sh: &Shell, args: &[String]) -> Error {
    built_and_become(
        sh,
        CargoProfile::Release,
        ("knock-bench", "knock-bench"),
        args,
    )
}

/// Builds the programs, and draws the pictures in docs from runs of them.
///
/// # Errors
/// They don't build, a step of the script fails, or this user is not root.
pub fn pictures(sh: &Shell) -> Result<()> {
    ensure!(
        shell::is_root(),
        "drawing needs network namespaces: run `cargo xtask pictures` as root"
    );
    build_programs(sh, CargoProfile::Dev, &[])?;
    sh.cmd("bash")
        .arg("docs/pictures.sh")
        .env("KNOCK_PROGRAMS", CargoProfile::Dev.directory())
        .quiet()
        .run()?;
    Ok(())
}

fn built_and_become(
    sh: &Shell,
    profile: CargoProfile,
    program: (&str, &str),
    args: &[String],
) -> Error {
    let (_package, name) = program;
    if let Err(error) = build_programs(sh, profile, &[program]) {
        return error;
    }
    let directory = profile.directory();
    let variable = |name: &str, program: &str| {
        let mut variable = std::ffi::OsString::from(format!("{name}="));
        variable.push(directory.join(program));
        variable
    };
    // Through env(1), because sudo forgets variables.
    let cmd = if shell::is_root() {
        sh.cmd("env")
    } else {
        sh.cmd("sudo").arg("env")
    };
    become_it(
        cmd.arg(variable("KNOCK_USER_BIN", "knock-user"))
            .arg(variable("KNOCK_CLIENT_BIN", "knock-client"))
            .arg(directory.join(name))
            .args(args),
    )
}

/// Builds the programs that are installed, and others by package and name, with one command, so that their
/// dependencies are built once.
///
/// # Errors
/// They don't build, or crates can't be downloaded.
pub fn build_programs(sh: &Shell, profile: CargoProfile, others: &[(&str, &str)]) -> Result<()> {
    let mut build = shell::cargo(sh).arg("build");
    if profile == CargoProfile::Release {
        build = build.arg("--release");
    }
    let installed = [
        ("knock-user", "knock-user"),
        ("knock-client", "knock-client"),
    ];
    let mut names = Vec::new();
    for (package, name) in installed.iter().chain(others) {
        build = build.args(["--package", package, "--bin", name]);
        names.push(*name);
    }
    let names = names.join(", ");
    shell::watch(&format!("building {names}"), build, |_| {})?
        .or_else(|| format!("building {names} failed: the compiler's messages are above"))
}

/// Replaces this process, so that signals reach the program itself.
fn become_it(cmd: Cmd<'_>) -> Error {
    let line = cmd.to_string();
    Error::new(Command::from(cmd).exec()).context(format!("running `{line}`"))
}
