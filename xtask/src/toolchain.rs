//! Finds the compiler of the kernel object.
//!
//! The BPF target has no prebuilt `core`, so it takes a compiler that may use unstable options
//! together with the library sources of that very compiler. Two places have such a pair: rustup's
//! nightly with its component rust-src, and a distribution's packages.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Cmd, Shell};

use crate::shell;

/// The variable that selects the compiler: `distribution` or `rustup`.
pub const ORIGIN_VARIABLE: &str = "KNOCK_EBPF_TOOLCHAIN";

/// The workspace's `rust-version`, its second number.
const OLDEST_MINOR: u32 = 88;

/// The origin of a compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `/usr/bin/rustc` and the distribution's package of its sources.
    Distribution,
    /// rustup's toolchain `nightly` with the component rust-src.
    Rustup,
}

impl Origin {
    /// Returns the origins to look at, best first. A distribution's compiler is a release that does not
    /// change from one day to the next, so it wins when both are complete.
    pub fn candidates() -> Result<Vec<Self>> {
        let wanted = env::var(ORIGIN_VARIABLE).unwrap_or_default();
        Ok(match wanted.as_str() {
            "" => vec![Self::Distribution, Self::Rustup],
            "distribution" => vec![Self::Distribution],
            "rustup" => vec![Self::Rustup],
            other => bail!("{ORIGIN_VARIABLE} is `{other}`: set it to `distribution` or `rustup`"),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Distribution => "the distribution's rustc",
            Self::Rustup => "rustup's nightly",
        })
    }
}

/// A compiler that can build the kernel object.
#[derive(Debug)]
pub struct Toolchain {
    /// Its origin.
    pub origin: Origin,
    /// Its version, by `rustc -vV`.
    pub version: Version,
    bin: PathBuf,
    sources: PathBuf,
}

impl Toolchain {
    /// Finds a complete toolchain; the error names what is missing.
    pub fn find(sh: &Shell, origin: Origin) -> Result<Self> {
        let bin = match origin {
            Origin::Distribution => PathBuf::from("/usr/bin"),
            Origin::Rustup => nightly_sysroot(sh)?.join("bin"),
        };
        let rustc = bin.join("rustc");
        ensure!(rustc.is_file(), "{} is missing", rustc.display());
        let cargo = bin.join("cargo");
        ensure!(cargo.is_file(), "{} is missing", cargo.display());
        let output = ask(sh, &rustc, &["-vV"])?;
        let version = Version::parse(&output)
            .with_context(|| format!("`{} -vV` prints nothing known: {output}", rustc.display()))?;
        ensure!(
            version.minor >= OLDEST_MINOR,
            "{} is {}, older than 1.{OLDEST_MINOR}",
            rustc.display(),
            version.release
        );
        let sysroot = ask(sh, &rustc, &["--print", "sysroot"])?;
        let sources = Path::new(&sysroot).join("lib/rustlib/src/rust");
        ensure!(
            sources.join("library/core").is_dir(),
            "the library sources are missing ({})",
            sources.display()
        );
        Ok(Self {
            origin,
            version,
            bin,
            sources,
        })
    }

    /// Returns this toolchain's cargo, without the environment of an outer cargo.
    pub fn cargo<'a>(&self, sh: &'a Shell) -> Cmd<'a> {
        self.command(sh, &self.bin.join("cargo"))
    }

    /// Returns this toolchain's clippy, if it has one.
    pub fn clippy<'a>(&self, sh: &'a Shell) -> Option<Cmd<'a>> {
        let program = self.bin.join("cargo-clippy");
        // Called directly: `cargo clippy` would take the first one on the path, another compiler's.
        program.is_file().then(|| {
            self.command(sh, &program)
                .env("CARGO", self.bin.join("cargo"))
                .arg("clippy")
        })
    }

    /// Returns the compiler itself.
    pub fn rustc(&self) -> PathBuf {
        self.bin.join("rustc")
    }

    /// Returns the directory of the library's sources.
    pub fn sources(&self) -> &Path {
        &self.sources
    }

    fn command<'a>(&self, sh: &'a Shell, program: &Path) -> Cmd<'a> {
        let cmd = shell::without_outer_cargo(sh.cmd(program)).env("RUSTC", self.rustc());
        match self.origin {
            // A release compiler refuses `-Z` without it.
            Origin::Distribution => cmd.env("RUSTC_BOOTSTRAP", "1"),
            Origin::Rustup => cmd,
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { release, llvm, .. } = &self.version;
        write!(f, "{} {release} with its sources, LLVM {llvm}", self.origin)
    }
}

/// The used fields of `rustc -vV`.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    /// As in `1.96.0`.
    pub release: String,
    pub(crate) minor: u32,
    /// The LLVM version as in `22.1.8`.
    pub llvm: String,
    /// Its first number: a linker with an older LLVM cannot read this compiler's output.
    pub llvm_major: u32,
}

impl Version {
    fn parse(output: &str) -> Option<Self> {
        let field = |name: &str| output.lines().find_map(|line| line.strip_prefix(name));
        let release = field("release: ")?;
        let llvm = field("LLVM version: ")?;
        Some(Self {
            release: release.to_owned(),
            minor: release.split('.').nth(1)?.parse().ok()?,
            llvm: llvm.to_owned(),
            llvm_major: llvm.split('.').next()?.parse().ok()?,
        })
    }
}

fn nightly_sysroot(sh: &Shell) -> Result<PathBuf> {
    // Not asked through `rustup run nightly`, which may start a download.
    let home = ask(sh, Path::new("rustup"), &["show", "home"])?;
    let toolchains = Path::new(&home).join("toolchains");
    let nightly = fs::read_dir(&toolchains)
        .with_context(|| format!("reading {}", toolchains.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| is_nightly(path));
    nightly.context("rustup has no toolchain `nightly`")
}

/// Accepts `nightly-x86_64-unknown-linux-gnu`, but not `nightly-2026-01-31-…`, pinned for something else.
fn is_nightly(toolchain: &Path) -> bool {
    toolchain
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("nightly-"))
        .is_some_and(|host| host.starts_with(env::consts::ARCH))
}

fn ask(sh: &Shell, program: &Path, args: &[&str]) -> Result<String> {
    shell::without_outer_cargo(sh.cmd(program))
        .args(args)
        .quiet()
        .ignore_stderr()
        .read()
        .with_context(|| format!("`{}` does not run", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let distribution = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
            binary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8";
        let nightly = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\n\
            release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        let version = |release: &str, minor, llvm: &str, llvm_major| {
            Some(Version {
                release: release.into(),
                minor,
                llvm: llvm.into(),
                llvm_major,
            })
        };
        let table = [
            (
                "distribution",
                distribution,
                version("1.96.0", 96, "22.1.8", 22),
            ),
            (
                "nightly",
                nightly,
                version("1.97.0-nightly", 97, "22.1.4", 22),
            ),
            ("no llvm", "release: 1.96.0", None),
            ("empty", "", None),
        ];
        for (name, output, expected) in table {
            assert_eq!(Version::parse(output), expected, "{name}");
        }
    }

    #[test]
    fn a_pinned_nightly_is_not_the_nightly() {
        let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        let table = [
            (format!("nightly-{host}"), true),
            (format!("nightly-2026-01-31-{host}"), false),
            (format!("stable-{host}"), false),
        ];
        for (name, expected) in table {
            assert_eq!(is_nightly(&Path::new("/x").join(&name)), expected, "{name}");
        }
    }
}
