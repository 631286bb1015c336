//! `cargo xtask dist`: builds everything that is installed, laid out below a prefix.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::Shell;

use crate::{
    launch::{self, Profile},
    shell,
};

/// The directory of documents below the prefix.
const DOCUMENTS: &str = "share/doc/knock";

/// The files that are installed there, with their paths in the repository, so that links between documents hold.
const INSTALLED: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "docs",
    "examples",
];

/// The documents below the root of the repository, and where each is installed below the prefix.
///
/// # Errors
/// A directory can't be read.
pub fn documents(root: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut documents = Vec::new();
    let mut left: Vec<PathBuf> = INSTALLED.iter().map(PathBuf::from).collect();
    while let Some(path) = left.pop() {
        let from = root.join(&path);
        if !from.is_dir() {
            let to = Path::new(DOCUMENTS).join(&path);
            documents.push((from, to));
            continue;
        }
        let entries = fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))?;
        for entry in entries {
            left.push(path.join(entry?.file_name()));
        }
    }
    documents.sort();
    Ok(documents)
}

/// Builds the programs and puts them, their manual, completions, documents and unit below
/// `target/dist`; returns that path.
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
    for (from, to) in documents(&sh.current_dir())? {
        let to = prefix.join(to);
        let directory = to.parent().unwrap_or(&prefix).to_owned();
        copy(sh, from, directory)?;
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
