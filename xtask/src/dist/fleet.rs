//! knock-fleet, which only hosts of a fleet install: a program, its man page and packages of its own.

use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::Shell;

use super::{Architecture, Build, Release, archive, copy, packages};
use crate::shell;

/// The package, and its program.
pub(super) const PACKAGE: &str = "knock-fleet";

/// Returns the directory of its files, laid out as below `/usr`.
pub(super) fn prefix(release: &Release) -> PathBuf {
    release.stage.join("fleet/usr")
}

/// Builds it for an architecture and writes its packages and an archive.
///
/// # Errors
/// It does not build, or a package can't be written.
pub(super) fn write(
    sh: &Shell,
    release: &Release,
    architecture: Architecture,
    build: Build,
    versions: &[Option<&str>],
    to: &Path,
) -> Result<()> {
    let built = architecture.build_fleet(sh, build)?;
    let prefix = prefix(release);
    copy(sh, built.join(PACKAGE), prefix.join("bin"))?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(sh, licence.into(), prefix.join("share/doc/knock-fleet"))?;
    }
    for version in versions {
        packages::deb(sh, release, PACKAGE, architecture, *version, to)?;
        packages::rpm(sh, release, PACKAGE, architecture, *version, to)?;
    }
    let name = format!(
        "{PACKAGE}-{}-{}-linux",
        release.version,
        architecture.linux()
    );
    for path in super::files(&prefix)? {
        let below = path.strip_prefix(&prefix).unwrap_or(&path).to_owned();
        let directory = below.parent().unwrap_or(&below);
        copy(sh, path.clone(), release.stage.join(&name).join(directory))?;
    }
    let archive = to.join(format!("{name}.tar.gz"));
    archive::tarball(sh, &release.stage, &name, release.date, &archive)
}

impl Architecture {
    /// Returns the C compiler of TLS.
    const fn c_compiler(self) -> &'static str {
        match self {
            Self::Amd64 if cfg!(target_arch = "x86_64") => "cc",
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 if cfg!(target_arch = "aarch64") => "cc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// Builds knock-fleet; returns its directory. Unlike the other programs it has parts in C, which need no library.
    fn build_fleet(self, sh: &Shell, build: Build) -> Result<PathBuf> {
        let variable = |name: &str| format!("{name}_{}", self.target().replace('-', "_"));
        let cargo = self
            .cargo_build(sh, build)
            .env(variable("CC"), self.c_compiler())
            .env(variable("CFLAGS"), "-U_FORTIFY_SOURCE -fno-stack-protector")
            .args(["--package", PACKAGE, "--bin", PACKAGE]);
        let what = format!("building {PACKAGE} for {}", self.debian());
        shell::watch(&what, cargo, |_| {})?
            .or_else(|| format!("{what} failed: the compiler's messages are above"))?;
        Ok(self.directory(build))
    }
}
