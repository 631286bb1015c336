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
}

/// Drives libFuzzer.
pub const CARGO_FUZZ: Program = Program {
    name: "cargo-fuzz",
    package: "cargo-fuzz",
    version: "0.13.2",
};

/// Checks licences, duplicates and sources of dependencies.
pub const CARGO_DENY: Program = Program {
    name: "cargo-deny",
    package: "cargo-deny",
    version: "0.20.2",
};

/// Makes Debian packages.
pub const CARGO_DEB: Program = Program {
    name: "cargo-deb",
    package: "cargo-deb",
    version: "3.8.0",
};

/// Makes rpm packages.
pub const CARGO_GENERATE_RPM: Program = Program {
    name: "cargo-generate-rpm",
    package: "cargo-generate-rpm",
    version: "0.21.1",
};

/// Lists the components of a program.
pub const CARGO_CYCLONEDX: Program = Program {
    name: "cargo-cyclonedx",
    package: "cargo-cyclonedx",
    version: "0.5.9",
};

/// Checks spelling.
pub const TYPOS: Program = Program {
    name: "typos",
    package: "typos-cli",
    version: "1.52.0",
};

/// Finds a program or installs it, which takes minutes. Prints one line.
///
/// # Errors
/// It does not build, or crates.io can't be reached: the error has the command that installs it.
pub fn get(sh: &Shell, program: Program) -> Result<()> {
    let Program {
        name,
        package,
        version,
    } = program;
    if shell::find_program(name).is_some() || shell::cargo_bin().join(name).is_file() {
        println!("{name}: found");
        return Ok(());
    }
    println!("{name}: building {package} {version}, some minutes");
    let install =
        shell::inner_cargo(sh).args(["install", package, "--locked", "--version", version]);
    let by_hand = format!("{name} is missing; run `cargo install {package} --locked`");
    shell::run_quietly(&format!("building {name}"), install).context(by_hand)
}
