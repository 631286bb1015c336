//! The files of packages that are the same for each processor, laid out as below `/usr`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::Shell;

use super::copy;
use crate::shell;

/// The directory of documents below the prefix.
const DOCUMENTS: &str = "share/doc/knock";

/// The files that are installed there, with their paths in the repository, so that links between documents hold.
const INSTALLED: [&str; 15] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "docs",
    "examples",
    "dist/crowdsec",
    "dist/fail2ban",
    "dist/grafana",
    "dist/kubernetes",
    "dist/prometheus",
    "dist/schema",
];

/// The directory of programs in the unit and the pages of the repository, and in packages.
const BY_HAND: &str = "/usr/local/bin/";
const PACKAGED: &str = "/usr/bin/";

/// Returns the documents below the root of the repository, and where each is installed below the prefix.
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

/// Builds the manual and puts it, documents, unit and the files beside it below a prefix; the page of knock-fleet below
/// another one.
///
/// # Errors
/// The manual does not build, or a file can't be read or written.
pub(super) fn fill(sh: &Shell, prefix: &Path, fleet: &Path) -> Result<()> {
    let build = shell::cargo(sh).args(["build", "--package", "knock-tests", "--bin", "manual"]);
    shell::watch("building the manual", build, |_| {})?
        .or_else(|| "building the manual failed: the compiler's messages are above".to_owned())?;
    let manual = sh.cmd(shell::target_dir().join("debug/manual"));
    let manual = manual.args([prefix, fleet]);
    manual.run().context("writing man pages and completions")?;
    for (from, to) in documents(&sh.current_dir())? {
        let to = prefix.join(to);
        let directory = to.parent().unwrap_or(prefix).to_owned();
        copy(sh, from, directory)?;
    }
    let unit = sh
        .read_file("dist/knock-user.service")
        .context("reading the unit")?;
    let unit = unit
        .replace(BY_HAND, PACKAGED)
        .replace("/usr/local/share/", "/usr/share/");
    sh.write_file(prefix.join("lib/systemd/system/knock-user.service"), unit)?;
    for (file, directory) in [
        ("dist/knock.sysusers", "lib/sysusers.d"),
        ("dist/knock.tmpfiles", "lib/tmpfiles.d"),
    ] {
        let directory = prefix.join(directory);
        sh.create_dir(&directory)?;
        sh.copy_file(file, directory.join("knock.conf"))?;
    }
    // CrowdSec runs it, so it can't be among the documents, which an administrator may remove.
    copy(
        sh,
        "dist/crowdsec/knock-bouncer".into(),
        prefix.join("share/knock/crowdsec"),
    )?;
    Ok(())
}
