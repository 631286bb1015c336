//! `cargo xtask dist`: everything that is installed, as it lies below a prefix.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use xshell::Shell;

use crate::{
    launch::{self, Profile},
    shell,
};

/// Builds the programs and puts them, their manual, completions, documents and unit below
/// `target/dist`; gives back where that is.
pub fn run(sh: &Shell) -> Result<PathBuf> {
    let target = shell::target_dir();
    let prefix = target.join("dist");
    if prefix.exists() {
        fs::remove_dir_all(&prefix).with_context(|| format!("removing {}", prefix.display()))?;
    }
    launch::build_programs(sh, Profile::Release, &[("knock-tests", "manual")])?;
    let built = Profile::Release.directory();
    for program in ["knock-user", "knock-client"] {
        copy(sh, built.join(program), prefix.join("bin"))?;
    }
    let manual = sh.cmd(built.join("manual")).arg(&prefix);
    manual.run().context("writing man pages and completions")?;
    let documents = prefix.join("share/doc/knock");
    for name in [
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
    ] {
        copy(sh, name.into(), documents.clone())?;
    }
    for (from, place) in [
        ("docs", "share/doc/knock"),
        ("examples", "share/doc/knock/examples"),
    ] {
        for file in sh.read_dir(from)? {
            if file.is_file() {
                copy(sh, file, prefix.join(place))?;
            }
        }
    }
    copy(
        sh,
        "dist/knock-user.service".into(),
        prefix.join("lib/systemd/system"),
    )?;
    let users = prefix.join("lib/sysusers.d");
    sh.create_dir(&users)?;
    sh.copy_file("dist/knock.sysusers", users.join("knock.conf"))?;
    Ok(prefix)
}

fn copy(sh: &Shell, file: PathBuf, directory: PathBuf) -> Result<()> {
    sh.create_dir(&directory)?;
    sh.copy_file(file, directory)?;
    Ok(())
}
