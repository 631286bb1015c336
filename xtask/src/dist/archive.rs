//! Archives whose bytes depend on their files alone: in a fixed order, with one time, owned by root.

use std::path::Path;

use anyhow::Result;
use xshell::Shell;

use crate::shell;

/// Writes `directory/name` as a compressed tar archive.
///
/// # Errors
/// tar or gzip fails.
pub(super) fn tarball(
    sh: &Shell,
    directory: &Path,
    name: &str,
    date: u64,
    to: &Path,
) -> Result<()> {
    let tar = sh
        .cmd("tar")
        .args([
            "--create",
            "--sort=name",
            "--format=gnu",
            "--owner=root:0",
            "--group=root:0",
        ])
        .arg(format!("--mtime=@{date}"))
        // Modes of files that a umask changed.
        .arg("--mode=u+rw,go+r-w,a+X")
        // Neither a name nor a time in gzip's header.
        .args(["--use-compress-program", "gzip -9n", "--file"])
        .arg(to)
        .arg("--directory")
        .arg(directory)
        .arg(name);
    shell::run_quietly("tar", tar)
}
