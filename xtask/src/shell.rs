//! Runs commands in a directory, as a user and with an environment.

mod running;

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell};

pub use self::running::{RunOutcome, in_short, run_quietly, watch};

/// The directories of programs for root, which a user's path often lacks.
const FOR_ROOT: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The variable by which rustup's programs select a toolchain.
const TOOLCHAIN: &str = "RUSTUP_TOOLCHAIN";

/// Returns the root of the workspace.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Returns the directory of cargo's builds.
pub fn target_dir() -> PathBuf {
    let outer = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(outer)
}

/// Returns a shell whose current directory is the root of the workspace.
pub fn at_root() -> Result<Shell> {
    let sh = Shell::new().context("starting a shell")?;
    sh.change_dir(workspace());
    sh.set_var("PATH", env::join_paths(path()).context("PATH")?);
    Ok(sh)
}

/// Returns the directories of `PATH`, and those of programs for root.
fn path() -> impl Iterator<Item = PathBuf> {
    let given = env::var_os("PATH").unwrap_or_default();
    let given: Vec<_> = env::split_paths(&given).collect();
    let more = FOR_ROOT.map(PathBuf::from);
    let more = more
        .into_iter()
        .filter(|directory| !given.contains(directory));
    let more: Vec<_> = more.collect();
    given.into_iter().chain(more)
}

/// Returns the cargo that runs us, else the one on the path.
pub fn cargo(sh: &Shell) -> Cmd<'_> {
    let cmd = sh.cmd(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if env::var_os("CARGO_TERM_COLOR").is_none() && io::stdout().is_terminal() {
        // It writes into a pipe and can't detect the terminal behind it.
        cmd.env("CARGO_TERM_COLOR", "always")
    } else {
        cmd
    }
}

/// Returns the same cargo for a build of its own, such as `cargo install`: without the settings of the outer build, but
/// with its toolchain.
///
/// Without the toolchain, rustup's `rustc` would choose one in the directory of each crate, where some crates from
/// crates.io have a `rust-toolchain` file.
pub fn inner_cargo(sh: &Shell) -> Cmd<'_> {
    for_inner_build(cargo(sh), env::var_os(TOOLCHAIN))
}

fn for_inner_build(cargo: Cmd<'_>, toolchain: Option<OsString>) -> Cmd<'_> {
    let cargo = without_outer_cargo(cargo);
    match toolchain {
        Some(toolchain) => cargo.env(TOOLCHAIN, toolchain),
        // Cargo runs without rustup, or is rustup's proxy, which sets the variable.
        None => cargo,
    }
}

/// Returns cargo's directory of the user.
pub fn cargo_home() -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    home.unwrap_or_default()
}

/// Returns the directories with the sources of crates, one for each registry.
pub fn registries() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cargo_home().join("registry/src"));
    let paths = entries.into_iter().flatten().flatten();
    let mut paths: Vec<_> = paths.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Returns the directory of `cargo install`.
pub fn cargo_bin() -> PathBuf {
    cargo_home().join("bin")
}

/// Searches a program on the path and in the directories for root.
pub fn find_program(name: &str) -> Option<PathBuf> {
    path()
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// Returns whether this process has root's rights.
pub fn is_root() -> bool {
    // Second number of "Uid:", the effective one.
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            == Some("0")
    })
}

/// Removes variables from `cmd`'s environment that an outer cargo, or its user, set for another build.
pub fn without_outer_cargo(mut cmd: Cmd<'_>) -> Cmd<'_> {
    for name in env::vars_os()
        .map(|(name, _)| name)
        .filter(is_for_outer_cargo)
    {
        cmd = cmd.env_remove(name);
    }
    cmd
}

fn is_for_outer_cargo(name: &OsString) -> bool {
    const NAMES: [&str; 8] = [
        "CARGO",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER", // clippy's way in
        "RUSTC_BOOTSTRAP",
        "RUSTDOC",
        "RUSTFLAGS",
        TOOLCHAIN,
    ];
    const PREFIXES: [&str; 6] = [
        "CARGO_BUILD_",
        "CARGO_ENCODED_",
        "CARGO_INCREMENTAL",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
    ];
    name.to_str().is_some_and(|name| {
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_build_does_not_affect_the_inner_one() {
        let table = [
            ("RUSTFLAGS", true),
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("CARGO_TARGET_DIR", true),
            ("CARGO_PROFILE_RELEASE_DEBUG", true),
            ("RUSTC_WORKSPACE_WRAPPER", true),
            ("RUSTUP_TOOLCHAIN", true),
            ("CARGO_HOME", false),
            ("CARGO_MAKEFLAGS", false),
            ("CARGO_NET_OFFLINE", false),
            ("HOME", false),
            ("PATH", false),
        ];
        for (name, removed) in table {
            assert_eq!(is_for_outer_cargo(&name.into()), removed, "{name}");
        }
    }
    #[test]
    fn an_inner_build_has_the_toolchain_that_it_is_given() {
        let sh = Shell::new().unwrap();
        let table = [
            ("with rustup", Some("1.95.0"), Some("1.95.0")),
            ("without rustup", None, None),
        ];
        for (name, toolchain, expected) in table {
            let print = sh.cmd("printenv").arg(TOOLCHAIN).quiet();
            let inner = for_inner_build(print, toolchain.map(OsString::from));
            let printed = inner.ignore_stderr().read().ok();
            assert_eq!(printed.as_deref(), expected, "{name}");
        }
    }
}
