//! Finds or installs bpf-linker, which turns the compiler's LLVM bitcode into the kernel object.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use object::Object as _;
use xshell::Shell;

use crate::{
    package::Apt,
    shell,
    toolchain::{Toolchain, Version},
};

const NAME: &str = "bpf-linker";

/// The version that setup installs; a newer one of the same line is accepted.
const VERSION: (u32, u32, u32) = (0, 13, 0);

/// An installed bpf-linker.
#[derive(Debug)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    version: (u32, u32, u32),
    /// `None` if LLVM is linked statically, which can't be read.
    llvm_major: Option<u32>,
}

impl Linker {
    /// Looks for a bpf-linker that runs and reads what `compiler` writes; the error names what is
    /// wrong with the one found.
    pub fn find(sh: &Shell, compiler: &Version) -> Result<Self> {
        let installed = shell::cargo_bin().join(NAME);
        let path = if installed.is_file() {
            Some(installed)
        } else {
            shell::find_program(NAME)
        };
        let path = path.context("bpf-linker is not installed")?;
        let output = sh
            .cmd(&path)
            .arg("--version")
            .quiet()
            .ignore_stderr()
            .read()
            .with_context(|| format!("{} does not run", path.display()))?;
        let version = parse_version(&output)
            .with_context(|| format!("`{} --version` prints `{output}`", path.display()))?;
        let linker = Self {
            llvm_major: llvm_major(&path)?,
            version,
            path,
        };
        linker.check(compiler)?;
        Ok(linker)
    }

    /// Builds bpf-linker from its sources against the LLVM that `toolchain` has.
    pub fn install(sh: &Shell, toolchain: &Toolchain, apt: &Apt<'_>) -> Result<Self> {
        let major = toolchain.version.llvm_major;
        let prefix = match llvm_prefix(sh, major) {
            Some(prefix) => prefix,
            None => {
                let package = format!("llvm-{major}-dev");
                apt.install(&[&package], "bpf-linker is built against it")?;
                llvm_prefix(sh, major).with_context(|| {
                    format!("{package} is installed but libLLVM.so is not there")
                })?
            }
        };
        let (a, b, c) = VERSION;
        println!("linker: building bpf-linker {a}.{b}.{c} for LLVM {major}, one to two minutes");
        let install = toolchain
            .cargo(sh)
            .args(["install", NAME, "--locked", "--force"])
            .args(["--version", &format!("{a}.{b}.{c}")])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{major}"),
            ])
            // LLVM does most of its work and is compiled already, so optimizing the rest takes longer than it saves.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        let by_hand = format!("LLVM_PREFIX={} {install}", prefix.display());
        shell::run_quietly("building bpf-linker", install.env("LLVM_PREFIX", prefix))
            .with_context(|| format!("bpf-linker is missing; run `{by_hand}`"))?;
        Self::find(sh, &toolchain.version)
    }

    fn check(&self, compiler: &Version) -> Result<()> {
        let (a, b, c) = VERSION;
        ensure!(self.version >= VERSION, "{self} is older than {a}.{b}.{c}");
        // LLVM reads the bitcode of older versions, never of newer ones.
        ensure!(
            self.llvm_major
                .is_none_or(|major| major >= compiler.llvm_major),
            "{self} can't read what a compiler with LLVM {} writes",
            compiler.llvm
        );
        Ok(())
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, c) = self.version;
        write!(f, "bpf-linker {a}.{b}.{c} ")?;
        match self.llvm_major {
            Some(major) => write!(f, "with LLVM {major}"),
            None => write!(f, "with an LLVM linked in"),
        }
    }
}

fn parse_version(output: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = output.trim().rsplit(' ').next()?.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

/// Returns the libLLVM that the program at `path` loads. `--version` lacks it, the dynamic section
/// has it.
fn llvm_major(path: &Path) -> Result<Option<u32>> {
    let reading = || format!("reading {}", path.display());
    let data = fs::read(path).with_context(reading)?;
    let file = object::File::parse(&*data).with_context(reading)?;
    for library in file.import_libraries().with_context(reading)? {
        let library = library.with_context(reading)?;
        let name = String::from_utf8_lossy(library.name()).into_owned();
        if let Some(major) = parse_library(&name) {
            return Ok(Some(major));
        }
    }
    Ok(None)
}

/// Returns the major version in `libLLVM.so.22.1` or, as LLVM 17 and older were called, `libLLVM-17.so.1`.
fn parse_library(name: &str) -> Option<u32> {
    let rest = name
        .strip_prefix("libLLVM.so.")
        .or_else(|| name.strip_prefix("libLLVM-"))?;
    rest.split('.').next()?.parse().ok()
}

/// Returns the directory of this major version of LLVM, if it has what linking against it needs.
fn llvm_prefix(sh: &Shell, major: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    if debian.join("lib/libLLVM.so").exists() {
        return Some(debian);
    }
    [format!("llvm-config-{major}"), "llvm-config".to_owned()]
        .iter()
        .find_map(|program| {
            let ask = |arg| sh.cmd(program).arg(arg).quiet().ignore_stderr().read().ok();
            let version = ask("--version")?;
            let prefix = PathBuf::from(ask("--prefix")?);
            let library = ["lib64/libLLVM.so", "lib/libLLVM.so"];
            (version.split('.').next()? == major.to_string()
                && library.iter().any(|library| prefix.join(library).exists()))
            .then_some(prefix)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_read_from_library_names() {
        let table = [
            ("libLLVM.so.22.1", Some(22)),
            ("libLLVM.so.21.1-rust-1.91.0-stable", Some(21)),
            ("libLLVM-17.so.1", Some(17)),
            ("libc.so.6", None),
        ];
        for (name, expected) in table {
            assert_eq!(parse_library(name), expected, "{name}");
        }
    }

    #[test]
    fn a_linker_must_read_what_the_compiler_writes() {
        let compiler = |llvm_major| Version {
            release: "1.96.0".into(),
            minor: 96,
            llvm: format!("{llvm_major}.1.8"),
            llvm_major,
        };
        let table = [
            ("same", (0, 13, 0), Some(22), 22, true),
            ("newer llvm", (0, 13, 0), Some(23), 22, true),
            ("older llvm", (0, 13, 0), Some(21), 22, false),
            ("older linker", (0, 9, 15), Some(22), 22, false),
            ("newer linker", (0, 14, 2), Some(22), 22, true),
            ("llvm linked in", (0, 13, 0), None, 22, true),
        ];
        for (name, version, llvm_major, compiler_llvm, expected) in table {
            let linker = Linker {
                path: NAME.into(),
                version,
                llvm_major,
            };
            assert_eq!(
                linker.check(&compiler(compiler_llvm)).is_ok(),
                expected,
                "{name}"
            );
        }
        assert_eq!(parse_version("bpf-linker 0.13.0\n"), Some((0, 13, 0)));
    }
}
