//! The client for Windows, in a zip archive.

use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::Shell;

use super::{Release, architecture, copy};
use crate::shell;

/// Rust's target; its linker is MinGW's compiler.
pub(super) const TARGET: &str = "x86_64-pc-windows-gnu";

/// The program.
const CLIENT: &str = "knock-client";

/// Builds the client; returns its path.
///
/// # Errors
/// It does not build.
pub(super) fn build(sh: &Shell) -> Result<PathBuf> {
    let mut flags = architecture::same_paths();
    // A time in the program's header would be the only difference between two builds.
    flags.push("-Clink-arg=-Wl,--no-insert-timestamp".to_owned());
    let cargo = shell::cargo(sh)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args([
            "build",
            "--profile",
            architecture::PROFILE,
            "--target",
            TARGET,
        ])
        .args(["--package", CLIENT, "--bin", CLIENT]);
    shell::watch("building for Windows", cargo, |_| {})?
        .or_else(|| "building for Windows failed: the compiler's messages are above".to_owned())?;
    let built = shell::target_dir().join(TARGET).join(architecture::PROFILE);
    Ok(built.join(CLIENT).with_extension("exe"))
}

/// Builds the client and writes the archive.
///
/// # Errors
/// It does not build, or zip fails.
pub(super) fn write(sh: &Shell, release: &Release, to: &Path) -> Result<()> {
    let program = build(sh)?;
    let name = format!("{CLIENT}-{}-x86_64-windows", release.version);
    let place = release.stage.join(&name);
    for file in [
        program,
        "LICENSE-MIT".into(),
        "LICENSE-APACHE".into(),
        "docs/client.md".into(),
    ] {
        copy(sh, file, place.clone())?;
    }
    let files = [
        "knock-client.exe",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "client.md",
    ]
    .map(|file| format!("{name}/{file}"));
    let inside = sh.clone();
    inside.change_dir(&release.stage);
    let date = format!("--date=@{}", release.date);
    shell::run_quietly("touch", inside.cmd("touch").arg(date).args(&files))?;
    let zip = inside
        .cmd("zip")
        // A zip archive has local times.
        .env("TZ", "UTC")
        .args(["-X", "-9", "-q"])
        .arg(to.join(format!("{name}.zip")))
        .args(&files);
    shell::run_quietly("zip", zip)
}
