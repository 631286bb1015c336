//! Programs that cargo builds from crates.io.

use anyhow::{Context as _, Result};
use xshell::Shell;

use crate::shell;

/// A program, and the version of its crate that `cargo xtask` installs. Any version that is installed already is
/// used.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    name: &'static str,
    package: &'static str,
    version: &'static str,
    /// The dependencies that are to be fast: libraries in C that compress.
    fast: &'static [&'static str],
}

/// Drives libFuzzer.
pub const CARGO_FUZZ: Program = Program {
    name: "cargo-fuzz",
    package: "cargo-fuzz",
    version: "0.13.2",
    fast: &[],
};

/// Checks licences, duplicates and sources of dependencies.
pub const CARGO_DENY: Program = Program {
    name: "cargo-deny",
    package: "cargo-deny",
    version: "0.20.2",
    fast: &[],
};

/// Makes Debian packages.
pub const CARGO_DEB: Program = Program {
    name: "cargo-deb",
    package: "cargo-deb",
    version: "3.8.0",
    fast: &["lzma-sys"],
};

/// Makes rpm packages.
pub const CARGO_GENERATE_RPM: Program = Program {
    name: "cargo-generate-rpm",
    package: "cargo-generate-rpm",
    version: "0.21.1",
    fast: &["zstd-sys"],
};

/// Lists the components of a program.
pub const CARGO_CYCLONEDX: Program = Program {
    name: "cargo-cyclonedx",
    package: "cargo-cyclonedx",
    version: "0.5.9",
    fast: &[],
};

/// Checks spelling.
pub const TYPOS: Program = Program {
    name: "typos",
    package: "typos-cli",
    version: "1.52.0",
    fast: &[],
};

/// Finds a program or installs it, which takes a minute or two. Prints one line.
///
/// It is built without optimisation, except for the libraries that would then take most of its time: with it, the
/// hundreds of crates of cargo-generate-rpm take many times as long to build as the program ever runs.
///
/// # Errors
/// It does not build, or crates.io can't be reached: the error has the command that installs it.
pub fn get(sh: &Shell, program: Program) -> Result<()> {
    let Program {
        name,
        package,
        version,
        fast,
    } = program;
    if shell::find_program(name).is_some() || shell::cargo_bin().join(name).is_file() {
        println!("{name}: found");
        return Ok(());
    }
    println!("{name}: building {package} {version}, a minute or two");
    let install = shell::inner_cargo(sh)
        .args(["install", package, "--locked", "--version", version])
        .args(profile(fast));
    let by_hand = format!("{name} is missing; run `cargo install {package} --locked`");
    shell::run_quietly(&format!("building {name}"), install).context(by_hand)
}

/// Returns cargo's options for programs that are built faster than they could run.
fn profile(fast: &[&str]) -> Vec<String> {
    let quick = [
        "opt-level=0",
        "debug=false",
        "codegen-units=16",
        "lto=false",
    ]
    .map(str::to_owned);
    let fast = fast
        .iter()
        .map(|package| format!("package.{package}.opt-level=3"));
    quick
        .into_iter()
        .chain(fast)
        .flat_map(|setting| ["--config".to_owned(), format!("profile.release.{setting}")])
        .collect()
}
