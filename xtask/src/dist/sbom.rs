//! The components of the programs, in the format of CycloneDX.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use xshell::Shell;

use super::{Architecture, Release, fleet};
use crate::shell;

/// The name, without extension, of the file that cargo-cyclonedx writes into the directory of each package.
const NAME: &str = "knock-sbom";

/// Writes a file for each program to `to`.
///
/// # Errors
/// cargo-cyclonedx fails, or a file can't be read or written.
pub(super) fn write(sh: &Shell, release: &Release, to: &Path) -> Result<()> {
    let root = sh.current_dir();
    for program in super::PROGRAMS.into_iter().chain([fleet::PACKAGE]) {
        let cyclonedx = shell::cargo(sh)
            .env("SOURCE_DATE_EPOCH", release.date.to_string())
            .args([
                "cyclonedx",
                "--format",
                "json",
                "--override-filename",
                NAME,
                "--quiet",
            ])
            .args(["--target", Architecture::Amd64.target(), "--manifest-path"])
            .arg(root.join(program).join("Cargo.toml"));
        let written = shell::run_quietly("cargo cyclonedx", cyclonedx);
        let text = fs::read_to_string(root.join(program).join(format!("{NAME}.json")));
        // It writes one for every member of the workspace.
        remove(&root)?;
        written?;
        let text = text.with_context(|| format!("reading the components of {program}"))?;
        // Packages of the workspace are named by their directories.
        let text = text.replace(&format!("file://{}/", root.display()), "file://./");
        let path = to.join(format!("{program}-{}.cdx.json", release.version));
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn remove(root: &Path) -> Result<()> {
    let reading = || format!("reading {}", root.display());
    for entry in fs::read_dir(root).with_context(reading)? {
        let member = entry.with_context(reading)?.path();
        // A member may have one in its directory.
        for directory in [member.clone(), member.join("ebpf")] {
            let path = directory.join(format!("{NAME}.json"));
            if path.is_file() {
                fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
    }
    Ok(())
}
