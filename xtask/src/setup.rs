//! Finds or installs the tools for building and linting, and prints one line for each.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use xshell::Shell;

use crate::{
    linker::Linker,
    package::Apt,
    shell,
    toolchain::{Origin, Toolchain, Version},
};

/// Debian's packages of a compiler that is new enough, its cargo and its sources.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// The tools that build the kernel object.
#[derive(Debug)]
pub struct Kit {
    /// The compiler with its sources.
    pub toolchain: Toolchain,
    /// A linker that reads what the compiler writes.
    pub linker: Linker,
}

impl fmt::Display for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { release, llvm, .. } = &self.toolchain.version;
        write!(f, "rustc {release} (LLVM {llvm}), {}", self.linker)
    }
}

/// Returns the first complete pair of compiler and linker that is already installed.
pub fn ready(sh: &Shell) -> Result<Kit> {
    let mut missing = Vec::new();
    for origin in Origin::candidates()? {
        let kit = Toolchain::find(sh, origin).and_then(|toolchain| {
            let linker = Linker::find(sh, &toolchain.version)?;
            Ok(Kit { toolchain, linker })
        });
        match kit {
            Ok(kit) => return Ok(kit),
            Err(why) => missing.push(format!("{origin}: {why:#}")),
        }
    }
    bail!(
        "the kernel object can't be built ({}); run: cargo xtask setup",
        missing.join("; ")
    )
}

/// Finds or installs the tools, and prints which.
///
/// # Errors
/// Something can't be installed, or a server can't be reached.
pub fn run(sh: &Shell, apt: &Apt<'_>) -> Result<Kit> {
    let kit = match ready(sh) {
        Ok(kit) => kit,
        Err(_) => complete(sh, apt)?,
    };
    println!("compiler: {}", kit.toolchain);
    println!("linker: {}", kit.linker);
    Ok(kit)
}

/// Completes one of the toolchains: first one that only lacks its linker, then by installing.
fn complete(sh: &Shell, apt: &Apt<'_>) -> Result<Kit> {
    let candidates = Origin::candidates()?;
    let mut failures = Vec::new();
    let mut attempt = |origin: Origin, toolchain: Result<Toolchain>| {
        let kit = toolchain.and_then(|toolchain| {
            let linker = match Linker::find(sh, &toolchain.version) {
                Ok(linker) => linker,
                Err(_) => Linker::install(sh, &toolchain, apt)?,
            };
            Ok(Kit { toolchain, linker })
        });
        kit.map_err(|why| {
            println!(
                "compiler: {origin} can't be used: {}",
                shell::in_short(&why)
            );
            failures.push(format!("{origin}: {why:#}"));
        })
        .ok()
    };
    for &origin in &candidates {
        if let Ok(toolchain) = Toolchain::find(sh, origin)
            && let Some(kit) = attempt(origin, Ok(toolchain))
        {
            return Ok(kit);
        }
    }
    // The distribution's first where it has one: its compiler, its LLVM and so the linker fit together,
    // while rustup's nightly of today may be newer than any LLVM that is packaged.
    let has_packages = apt.has_package(sh, COMPILER_PACKAGES[0]);
    let mut candidates = candidates;
    if !has_packages {
        candidates.reverse();
    }
    for &origin in &candidates {
        if Toolchain::find(sh, origin).is_err()
            && let Some(kit) = attempt(origin, install_toolchain(sh, origin, apt))
        {
            return Ok(kit);
        }
    }
    bail!("no compiler for the kernel object\n{}", failures.join("\n"))
}

fn install_toolchain(sh: &Shell, origin: Origin, apt: &Apt<'_>) -> Result<Toolchain> {
    let missing = match Toolchain::find(sh, origin) {
        Ok(toolchain) => return Ok(toolchain),
        Err(missing) => missing,
    };
    match origin {
        Origin::Rustup => {
            if shell::find_program("rustup").is_none() {
                bail!("rustup is not installed");
            }
            let rustup = || sh.cmd("rustup").env("RUSTUP_MAX_RETRIES", "1").quiet();
            println!("compiler: {missing:#}; asking rustup for nightly with rust-src");
            let installed = rustup().args(["which", "--toolchain", "nightly", "rustc"]);
            let command = if installed.ignore_stdout().ignore_stderr().run().is_ok() {
                rustup().args(["component", "add", "rust-src", "--toolchain", "nightly"])
            } else {
                rustup()
                    .args(["toolchain", "install", "nightly", "--no-self-update"])
                    .args(["--profile", "minimal"])
                    .args(["--component", "rust-src", "--component", "clippy"])
            };
            shell::run_quietly("installing rustup's nightly", command)?;
        }
        Origin::Distribution => {
            apt.install(&COMPILER_PACKAGES, "compiler and its sources")?;
        }
    }
    Toolchain::find(sh, origin).context("still incomplete after installing")
}

/// Installs rustfmt and clippy, for everything that is not the kernel object.
///
/// # Errors
/// They can't be installed, or a server can't be reached.
pub fn lints(sh: &Shell, apt: &Apt<'_>) -> Result<()> {
    let has = |tool: &str| {
        let ask = shell::cargo(sh).args([tool, "--version"]).quiet();
        ask.ignore_stdout().ignore_stderr().run().is_ok()
    };
    if has("fmt") && has("clippy") {
        println!("lints: cargo fmt and cargo clippy found");
    } else if shell::find_program("rustup").is_some() {
        let add = sh
            .cmd("rustup")
            .args(["component", "add", "rustfmt", "clippy"]);
        shell::run_quietly("installing rustfmt and clippy", add)?;
        println!("lints: installed rustfmt and clippy with rustup");
    } else {
        apt.install(
            &["rustfmt-web", "rust-web-clippy"],
            "cargo fmt and cargo clippy",
        )?;
    }
    Ok(())
}

/// Installs clippy of the kernel object's compiler. Not every distribution has one, so its absence is
/// not an error: `cargo xtask test` then reports that it left those lints out.
pub fn kernel_lints(sh: &Shell, toolchain: &Toolchain, apt: &Apt<'_>) {
    if toolchain.clippy(sh).is_some() {
        println!("kernel lints: clippy of {} found", toolchain.origin);
        return;
    }
    let installed = match toolchain.origin {
        Origin::Rustup => {
            let add = sh.cmd("rustup").args(["component", "add", "clippy"]);
            let add = add.args(["--toolchain", "nightly"]);
            shell::run_quietly("installing clippy for nightly", add)
        }
        Origin::Distribution => apt.install(&["rust-web-clippy"], "lints of the kernel object"),
    };
    match installed {
        Ok(()) => println!("kernel lints: installed clippy of {}", toolchain.origin),
        Err(why) => println!("kernel lints: none ({})", shell::in_short(&why)),
    }
}
