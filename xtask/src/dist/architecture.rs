//! The processors that programs are built for, each in the names that package formats use.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use xshell::{Cmd, Shell};

use crate::shell;

/// The profile of what is published, in the workspace's manifest.
pub(super) const PROFILE: &str = "published";

/// How the programs of packages are built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Build {
    /// As they are published: small, and the same in any directory.
    Published,
    /// Quickly, and shared with the programs that run in virtual machines.
    Quick,
}

impl Build {
    /// Returns the profile in the workspace's manifest.
    pub(crate) const fn profile(self) -> &'static str {
        match self {
            Self::Published => PROFILE,
            Self::Quick => "vm",
        }
    }

    /// Returns the compiler's options.
    fn flags(self) -> Vec<String> {
        match self {
            Self::Published => same_paths(),
            Self::Quick => Vec::new(),
        }
    }
}

/// A processor.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Returns its name in Debian, Go and container images.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Returns its name in the kernel, in rpm and in Rust's targets.
    pub const fn linux(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Returns Rust's target: the C library is linked in, so that one program runs on every distribution.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Builds both programs; returns their directory.
    ///
    /// # Errors
    /// They don't build.
    pub fn build(self, sh: &Shell, build: Build) -> Result<PathBuf> {
        let mut cargo = self.cargo_build(sh, build);
        for program in super::PROGRAMS {
            cargo = cargo.args(["--package", program, "--bin", program]);
        }
        let what = format!("building for {}", self.debian());
        shell::watch(&what, cargo, |_| {})?
            .or_else(|| format!("{what} failed: the compiler's messages are above"))?;
        Ok(self.directory(build))
    }

    /// Returns the directory of the programs.
    pub(crate) fn directory(self, build: Build) -> PathBuf {
        shell::target_dir()
            .join(self.target())
            .join(build.profile())
    }

    /// Returns the command that builds packages, which are yet to be named.
    pub(super) fn cargo_build(self, sh: &Shell, build: Build) -> Cmd<'_> {
        self.cargo(sh, &build.flags())
            .args(["build", "--profile", build.profile()])
            .args(["--target", self.target()])
    }

    /// Returns the cargo command, which links with what is part of the target: no other compiler is needed.
    pub(crate) fn cargo<'a>(self, sh: &'a Shell, flags: &[String]) -> Cmd<'a> {
        let target = self.target().to_uppercase().replace('-', "_");
        let mut all = vec!["-Clink-self-contained=yes".to_owned()];
        all.extend_from_slice(flags);
        shell::cargo(sh)
            .env(format!("CARGO_TARGET_{target}_LINKER"), "rust-lld")
            .env("CARGO_ENCODED_RUSTFLAGS", all.join("\x1f"))
    }

    /// Finds or installs the libraries that programs for it are linked with.
    ///
    /// # Errors
    /// They can't be installed.
    pub(crate) fn prepare(self, sh: &Shell) -> Result<()> {
        get_target(sh, self.target())
    }
}

/// Options for the same octets in any directory.
pub(super) fn same_paths() -> Vec<String> {
    let workspace = format!("--remap-path-prefix={}=.", shell::workspace().display());
    let registries = shell::registries();
    let registries = registries
        .iter()
        .map(|registry| format!("--remap-path-prefix={}=/crates", registry.display()));
    [workspace].into_iter().chain(registries).collect()
}

/// Finds the libraries of one of Rust's targets or installs them with rustup.
///
/// # Errors
/// There is no rustup, or the server can't be reached.
pub(crate) fn get_target(sh: &Shell, target: &str) -> Result<()> {
    let print = sh
        .cmd("rustc")
        .args(["--print", "target-libdir", "--target", target]);
    let libraries = print.quiet().read().context("rustc does not run")?;
    if Path::new(&libraries).is_dir() {
        println!("target {target}: found");
        return Ok(());
    }
    if shell::find_program("rustup").is_none() {
        bail!("the libraries of {target} are missing and there is no rustup to install them");
    }
    let add = sh.cmd("rustup").args(["target", "add", target]);
    shell::run_quietly(&format!("installing {target}"), add)?;
    println!("target {target}: installed");
    Ok(())
}
