//! Running commands: where, as whom, and in which environment.

use std::{
    env,
    ffi::OsString,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell};

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    let outer = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(outer)
}

/// A shell whose current directory is the root of the workspace.
pub fn at_root() -> Result<Shell> {
    let sh = Shell::new().context("starting a shell")?;
    sh.change_dir(workspace());
    Ok(sh)
}

/// The cargo that runs us, else the one on the path.
pub fn cargo(sh: &Shell) -> Cmd<'_> {
    sh.cmd(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where `cargo install` puts programs.
pub fn cargo_bin() -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    home.unwrap_or_default().join("bin")
}

/// Looks a program up on the path, and where programs for root live: a user's path often lacks those.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

/// Whether this process has root's rights.
pub fn is_root() -> bool {
    // Second number of "Uid:", the effective one.
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            == Some("0")
    })
}

/// Takes out of `cmd`'s environment what the cargo above us, or its user, meant for another build.
pub fn without_outer_cargo(mut cmd: Cmd<'_>) -> Cmd<'_> {
    for name in env::vars_os()
        .map(|(name, _)| name)
        .filter(is_for_outer_cargo)
    {
        cmd = cmd.env_remove(name);
    }
    cmd
}

fn is_for_outer_cargo(name: &OsString) -> bool {
    const NAMES: [&str; 8] = [
        "CARGO",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER", // clippy's way in
        "RUSTC_BOOTSTRAP",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    const PREFIXES: [&str; 6] = [
        "CARGO_BUILD_",
        "CARGO_ENCODED_",
        "CARGO_INCREMENTAL",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
    ];
    name.to_str().is_some_and(|name| {
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

/// Runs `cmd` quietly; when it fails, the error carries the end of what it printed.
pub fn run_quietly(cmd: Cmd<'_>) -> Result<()> {
    let line = cmd.to_string();
    let output = cmd
        // rustup would end with a backtrace instead of its reason.
        .env("RUST_BACKTRACE", "0")
        .quiet()
        .ignore_status()
        .output()
        .with_context(|| format!("running `{line}`"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let end = lines[lines.len().saturating_sub(12)..].join("\n  ");
    anyhow::bail!("`{line}` failed ({}):\n  {end}", output.status)
}

/// Runs `cmd`, passing its output on as it comes, and hands each whole line to `on_line`.
/// Returns whether the command succeeded.
pub fn watch(cmd: Cmd<'_>, on_line: impl FnMut(&str)) -> Result<bool> {
    watch_into(&mut io::stdout(), cmd, on_line)
}

fn watch_into(to: &mut impl Write, cmd: Cmd<'_>, on_line: impl FnMut(&str)) -> Result<bool> {
    let line = cmd.to_string();
    writeln!(to, "\n$ {line}").context("writing the output")?;
    // One pipe for both streams: cargo names a suite on stderr, libtest reports on stdout.
    let (mut reader, writer) = io::pipe().context("making a pipe")?;
    let mut child = {
        let mut command = Command::from(cmd);
        command
            .stdout(writer.try_clone().context("making a pipe")?)
            .stderr(writer);
        command
            .spawn()
            .with_context(|| format!("running `{line}`"))?
        // `command` holds the writing end and must go, else the pipe never ends.
    };
    tee(&mut reader, to, on_line).with_context(|| format!("output of `{line}`"))?;
    Ok(child
        .wait()
        .with_context(|| format!("waiting for `{line}`"))?
        .success())
}

/// Copies at once what comes, so that a test's name shows while it runs, and splits lines besides.
fn tee(from: &mut impl Read, to: &mut impl Write, mut on_line: impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = from.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..n])?;
        to.flush()?;
        line.extend_from_slice(&chunk[..n]);
        while let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            on_line(String::from_utf8_lossy(&line[..end]).trim_end());
            line.drain(..=end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_build_is_kept_out_of_the_inner_one() {
        let table = [
            ("RUSTFLAGS", true),
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("CARGO_TARGET_DIR", true),
            ("CARGO_PROFILE_RELEASE_DEBUG", true),
            ("RUSTC_WORKSPACE_WRAPPER", true),
            ("RUSTUP_TOOLCHAIN", true),
            ("CARGO_HOME", false),
            ("CARGO_MAKEFLAGS", false),
            ("CARGO_NET_OFFLINE", false),
            ("HOME", false),
            ("PATH", false),
        ];
        for (name, removed) in table {
            assert_eq!(is_for_outer_cargo(&name.into()), removed, "{name}");
        }
    }

    #[test]
    fn lines_are_whole_whatever_the_chunks() {
        let long = "x".repeat(5000);
        let text = format!("one\n\ntwo\r\n{long}\ntail");
        let (mut copy, mut lines) = (Vec::new(), Vec::new());
        tee(&mut text.as_bytes(), &mut copy, |line| {
            lines.push(line.to_owned())
        })
        .unwrap();
        assert_eq!(String::from_utf8(copy).unwrap(), text);
        assert_eq!(lines, ["one", "", "two", &long]);
    }

    #[test]
    fn watch_sees_both_streams_and_the_status() {
        let sh = at_root().unwrap();
        let mut lines = Vec::new();
        let script = "echo out; echo err >&2; exit 3";
        let mut shown = Vec::new();
        let ok = watch_into(&mut shown, sh.cmd("sh").args(["-c", script]), |line| {
            lines.push(line.to_owned());
        });
        assert!(!ok.unwrap());
        assert_eq!(lines, ["out", "err"]);
        assert!(shown.ends_with(b"\nout\nerr\n"));
    }

    #[test]
    fn a_quiet_failure_says_what_was_printed() {
        let sh = at_root().unwrap();
        let error = run_quietly(sh.cmd("sh").args(["-c", "echo why; exit 1"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
