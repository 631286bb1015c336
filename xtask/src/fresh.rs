//! `cargo xtask fresh`: runs the commands of README, and others by name, in a pristine Debian system.
//!
//! ```text
//! mmdebstrap ─ debian.rs ─▶ target/fresh/root, pristine ─┐
//! a clone of HEAD ───────────────────────────────────────┴ overlay, inside.sh ─▶ time and outcome of each command
//! ```
//!
//! The system has what README takes for granted: Rust by rustup, a C compiler, root, apt. It is a Debian
//! 12 with mounts and process ids of its own: its bpffs, `/run` and `/tmp` are its own. Toolchains
//! and downloaded crates are the host's, seen through an overlay, so that what is installed there stays
//! there. The network is the host's.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Cmd, Shell};

use crate::{
    debian::{self, System},
    package::Apt,
    progress, shell,
    tools::{self, Verb},
};

/// The packages that README presupposes: a C compiler, and the certificates with which rustup was downloaded.
pub(crate) const SYSTEM: System = System {
    name: "root",
    packages: "ca-certificates,gcc,libc6-dev",
};

/// The script of its first process.
const SCRIPT: &str = "inside.sh";

/// The path of the clone in the system.
const CHECKOUT: &str = "root/knock";

/// The paragraph of the README whose commands run by default.
const README_HEADING: &str = "## Try it";

/// Commands that are not in README, and run by their names.
const MORE: [&str; 1] = ["cargo xtask packages"];

/// Variables with the settings of the network, which belong to the machine and not to its user.
const NETWORK_VARIABLES: [&str; 14] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "ssl_cert_file",
    "ssl_cert_dir",
    "curl_ca_bundle",
    "cargo_http_proxy",
    "cargo_http_cainfo",
    "cargo_registries_crates_io_protocol",
    "rustup_dist_server",
    "rustup_update_root",
    "rustup_auto_install",
];

/// The result of a command.
struct CommandRun {
    line: String,
    passed: bool,
    took: Duration,
}

/// Runs commands in a pristine system: those of `verbs`, or README's paragraph about the first try; returns whether all
/// succeeded.
///
/// # Errors
/// Such a system can't be made here, or neither README nor `MORE` has these commands.
pub fn run(sh: &Shell, apt: &Apt<'_>, verbs: &[String]) -> Result<bool> {
    let readme = fs::read_to_string("README.md").or_else(|_| {
        fs::read_to_string(shell::workspace().join("README.md")).context("reading README.md")
    })?;
    let commands = chosen(&readme, verbs)?;
    ensure!(
        shell::is_root(),
        "`cargo xtask fresh` mounts file systems: run it as root"
    );
    tools::get(apt, Verb::Fresh)?;
    let base = directory();
    let root = debian::get(sh, &base, SYSTEM).context("a pristine system can't be made here")?;
    let place = WritableRoot::new(&base)?;
    clone(sh, &place.directory.join("system/upper"))?;
    write_script(sh, &root, &place)?;
    let mut all = Vec::new();
    for line in &commands {
        let began = Instant::now();
        let cmd = inside(sh, &place, line);
        let passed = shell::watch(line, cmd, |_| {})?.passed;
        all.push(CommandRun {
            line: line.clone(),
            passed,
            took: began.elapsed(),
        });
    }
    println!("\n{:<44} {:>12}", "in a pristine Debian 12", "took");
    for CommandRun { line, passed, took } in &all {
        let outcome = if *passed { "" } else { "  FAILED" };
        println!("{line:<44} {:>12}{outcome}", progress::time(*took));
    }
    Ok(all.iter().all(|ran| ran.passed))
}

/// Returns the directory of the pristine system.
pub(crate) fn directory() -> PathBuf {
    shell::target_dir().join("fresh")
}

/// Returns the commands of all paragraphs, without their comments.
fn commands(readme: &str) -> Vec<String> {
    let lines = readme
        .lines()
        .filter(|line| line.starts_with("cargo xtask "));
    lines
        .map(|line| line.split('#').next().unwrap_or_default().trim().to_owned())
        .collect()
}

/// Returns those with these verbs, or all of the paragraph about the first try.
fn chosen(readme: &str, verbs: &[String]) -> Result<Vec<String>> {
    if verbs.is_empty() {
        let paragraph = readme.split(README_HEADING).nth(1).unwrap_or_default();
        let paragraph = paragraph.split("\n## ").next().unwrap_or_default();
        let all = commands(paragraph);
        ensure!(
            !all.is_empty(),
            "README.md has no commands below `{README_HEADING}`"
        );
        return Ok(all);
    }
    let mut known = commands(readme);
    known.extend(MORE.map(str::to_owned));
    let command = |verb: &String| {
        let found = known
            .iter()
            .find(|line| line.split_whitespace().nth(2) == Some(verb.as_str()));
        found.cloned().with_context(|| {
            format!(
                "`cargo xtask {verb}` is not one of the commands that run in a pristine system: {}",
                known.join(", ")
            )
        })
    };
    verbs.iter().map(command).collect()
}

/// The writable half of one run, removed at its end.
struct WritableRoot {
    directory: PathBuf,
}

impl WritableRoot {
    fn new(base: &Path) -> Result<Self> {
        remove_leftovers(base)?;
        let place = Self {
            directory: base.join(format!("run-{}", process::id())),
        };
        for part in [
            "root",
            "system/upper",
            "system/work",
            "crates/upper",
            "crates/work",
        ] {
            let path = place.directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(place)
    }
}

impl Drop for WritableRoot {
    fn drop(&mut self) {
        if let Err(why) = fs::remove_dir_all(&self.directory) {
            eprintln!("removing {}: {why}", self.directory.display());
        }
    }
}

/// Removes the leftovers of runs that were killed.
fn remove_leftovers(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base).with_context(|| format!("reading {}", base.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let maker = name.and_then(|name| name.strip_prefix("run-"));
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Puts a clone of HEAD into the system.
fn clone(sh: &Shell, upper: &Path) -> Result<()> {
    let git = || sh.cmd("git").args(["-c", "safe.directory=*"]);
    let changed = git()
        .args(["status", "--porcelain", "--untracked-files=no"])
        .quiet();
    let changed = changed
        .read()
        .context("the workspace is not a git repository")?;
    if !changed.is_empty() {
        println!("fresh: changes that are not committed are not part of it");
    }
    let clone = git()
        .args(["clone", "--quiet", "--no-hardlinks"])
        .arg(shell::workspace())
        .arg(upper.join(CHECKOUT));
    shell::run_quietly("cloning", clone)
}

/// Returns the command that runs a line in the system. Its mounts end with its processes.
fn inside<'a>(sh: &'a Shell, place: &WritableRoot, line: &str) -> Cmd<'a> {
    sh.cmd("unshare")
        .args(["--mount", "--pid", "--ipc", "--uts", "--fork"])
        .args(["--kill-child", "--propagation", "private"])
        .args(["env", "--ignore-environment", "sh", "-eu"])
        .arg(place.directory.join(SCRIPT))
        .arg(line)
}

/// Writes the script that the first process of the system runs.
fn write_script(sh: &Shell, root: &Path, place: &WritableRoot) -> Result<()> {
    let cargo = shell::cargo_home();
    let overlay = |lower: &Path, part: &str| {
        let part = place.directory.join(part);
        format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            part.join("upper").display(),
            part.join("work").display()
        )
    };
    let own = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("ROOT", place.directory.join("root").display().to_string()),
        ("SYSTEM", overlay(root, "system")),
        ("CRATES", overlay(&cargo.join("registry"), "crates")),
        ("RUSTUP", rustup_home(sh)?.display().to_string()),
        ("CARGO", cargo.display().to_string()),
    ];
    let mut script = String::new();
    for (name, value) in own {
        script += &format!("{name}={}\n", quoted(&value));
    }
    for (name, value) in env::vars() {
        if NETWORK_VARIABLES.contains(&name.to_lowercase().as_str()) || name == "TERM" {
            script += &format!("export {name}={}\n", quoted(&value));
        }
    }
    script += include_str!("fresh/inside.sh");
    let path = place.directory.join(SCRIPT);
    fs::write(&path, script).with_context(|| format!("writing {}", path.display()))
}

/// Returns a word as a shell reads it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn rustup_home(sh: &Shell) -> Result<PathBuf> {
    let ask = sh.cmd("rustup").args(["show", "home"]).quiet();
    let home = ask.ignore_stderr().read();
    let home = home.context("rustup does not run: the system would have no Rust")?;
    let home = PathBuf::from(home);
    if !home.join("toolchains").is_dir() {
        bail!("rustup has no toolchains in {}", home.display());
    }
    Ok(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_the_readme() {
        const UNKNOWN: &str = "is not one of the commands that run in a pristine system: cargo xtask demo, cargo xtask \
            test, cargo xtask dist --arch amd64, cargo xtask packages";
        let readme = fs::read_to_string(shell::workspace().join("README.md")).unwrap();
        type Row = (
            &'static str,
            &'static [&'static str],
            Result<&'static [&'static str], &'static str>,
        );
        let table: [Row; 6] = [
            (
                "the first try",
                &[],
                Ok(&["cargo xtask demo", "cargo xtask test"]),
            ),
            ("one", &["test"], Ok(&["cargo xtask test"])),
            (
                "one of another paragraph",
                &["dist"],
                Ok(&["cargo xtask dist --arch amd64"]),
            ),
            (
                "one outside of README",
                &["packages", "demo"],
                Ok(&["cargo xtask packages", "cargo xtask demo"]),
            ),
            ("another", &["dance"], Err("dance")),
            ("the beginning of one", &["dem"], Err("dem")),
        ];
        for (name, verbs, expected) in table {
            let verbs: Vec<_> = verbs.iter().map(ToString::to_string).collect();
            let lines = chosen(&readme, &verbs).map_err(|why| why.to_string());
            let expected = expected.map(|lines| lines.iter().map(ToString::to_string).collect());
            let expected = expected.map_err(|verb| format!("`cargo xtask {verb}` {UNKNOWN}"));
            assert_eq!(lines, expected, "{name}");
        }
        assert!(chosen("# x\n", &[]).is_err());
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        let table = [("a b", "'a b'"), ("$x'y", r"'$x'\''y'")];
        for (word, expected) in table {
            assert_eq!(quoted(word), expected, "{word}");
        }
    }
}
