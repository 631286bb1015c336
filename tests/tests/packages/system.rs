//! A pristine system that a test may change: an overlay, in which commands run with mounts of their own.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use knock_tests::namespace::{Namespace, run, text};
use tempfile::TempDir;

/// Returns the directory with the packages.
pub(crate) fn packages() -> PathBuf {
    given("KNOCK_PACKAGES")
}

/// Returns a pristine Debian without systemd.
pub(crate) fn minimal() -> PathBuf {
    given("KNOCK_PRISTINE")
}

/// Returns a pristine Debian with systemd, which does not run.
pub(crate) fn with_systemd() -> PathBuf {
    given("KNOCK_PRISTINE_SYSTEMD")
}

fn given(name: &str) -> PathBuf {
    let path = env::var_os(name);
    path.expect("run `cargo xtask packages`, which makes what these tests install")
        .into()
}

/// The directories of programs in a Debian.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns a program below another root directory, with no variable but the path.
pub(crate) fn bare(root: &Path, program: &str, words: &[&str]) -> Output {
    let mut command = Command::new("chroot");
    command.arg(root).arg(program).args(words);
    command.env_clear().env("PATH", PATH).output().unwrap()
}

/// What the kernel provides, for a program that protects an interface.
const MOUNTS: [&str; 5] = [
    "mount -t proc proc proc",
    "mount -t sysfs sysfs sys",
    "mount --bind /sys/fs/bpf sys/fs/bpf",
    "mount --rbind /dev dev",
    "mount -t tmpfs -o mode=755 run run",
];

/// The system, which ends with the value.
#[derive(Debug)]
pub(crate) struct System {
    place: TempDir,
}

impl System {
    /// Copies of a pristine system share its files as long as they don't change them.
    pub(crate) fn new(pristine: &Path) -> Self {
        Self::mounted(pristine, |mount| run(mount))
    }

    /// Returns one whose `/sys` lists the interfaces of a namespace.
    pub(crate) fn within(pristine: &Path, namespace: &Namespace) -> Self {
        Self::mounted(pristine, |mount| namespace.enter(|| run(mount)))
    }

    fn mounted(pristine: &Path, run_mount: impl Fn(&mut Command) -> String) -> Self {
        // Below `target`, since the upper half of an overlay can't be on another overlay.
        let place = tempfile::tempdir_in(packages()).unwrap();
        for part in ["upper", "work", "root"] {
            fs::create_dir(place.path().join(part)).unwrap();
        }
        let system = Self { place };
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            pristine.display(),
            system.place.path().join("upper").display(),
            system.place.path().join("work").display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "system", "-o", &options]);
        run(mount.arg(system.root()));
        for line in MOUNTS {
            let mut mount = Command::new("sh");
            run_mount(mount.args(["-c", line]).current_dir(system.root()));
        }
        system
    }

    /// Returns its root directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.place.path().join("root")
    }

    /// Returns a file in it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Returns a command in it, in a language that does not change.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.root()).args(["/bin/sh", "-c", line]);
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", PATH);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command in it.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs a command that must succeed; returns its output.
    #[track_caller]
    pub(crate) fn succeeds(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(
            output.status.success(),
            "`{line}` {}:\n{}",
            output.status,
            text(&output)
        );
        text(&output)
    }

    /// Copies a package into it; returns its path there.
    pub(crate) fn bring(&self, package: &str) -> String {
        fs::copy(packages().join(package), self.path("root").join(package)).unwrap();
        format!("/root/{package}")
    }

    /// Returns all files and links, without those of dpkg, rpm and this test.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        const OTHERS: [&str; 8] = [
            "/var/lib/dpkg/",
            "/var/lib/rpm/",
            "/usr/lib/sysimage/",
            "/var/log/",
            "/var/cache/",
            "/root/",
            "/dev/",
            "/run/",
        ];
        let find = "find / -xdev ! -type d";
        let files = self.succeeds(find);
        files
            .lines()
            .filter(|path| !OTHERS.iter().any(|start| path.starts_with(start)))
            .map(str::to_owned)
            .collect()
    }

    /// Returns the owner, group and mode of a file.
    #[track_caller]
    pub(crate) fn rights(&self, path: &str) -> String {
        self.succeeds(&format!("stat --format '%U:%G %a' {path}"))
            .trim()
            .to_owned()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _ = unmount
            .args(["--recursive", "--lazy"])
            .arg(self.root())
            .output();
    }
}

/// Returns what a command printed, without the lines of dpkg itself.
pub(crate) fn own_lines(printed: &str) -> Vec<&str> {
    const OF_DPKG: [&str; 8] = [
        "Selecting previously unselected package",
        "(Reading database",
        "Preparing to unpack",
        "Unpacking knock",
        "Setting up knock",
        "Removing knock",
        "Purging configuration files for knock",
        "dpkg: warning: while removing knock, directory",
    ];
    let is_own = |line: &&str| !OF_DPKG.iter().any(|start| line.starts_with(start));
    printed
        .lines()
        // A terminal would show the last of these only.
        .map(|line| line.rsplit('\r').next().unwrap_or(line))
        .filter(is_own)
        .filter(|line| !line.is_empty())
        .collect()
}
