//! Finds QEMU on the host, installs it with apt if that removes nothing, or unpacks it below `target`.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Cmd, Shell};

use super::kernel;
use crate::{package::Apt, shell};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Packages that belong to one build of QEMU, and are taken together even if the host has some of them.
const OF_ONE_BUILD: [&str; 3] = ["qemu-", "seabios", "ipxe-qemu"];

/// A QEMU that runs.
#[derive(Debug)]
pub(super) struct Qemu {
    program: PathBuf,
    /// The directory to which it was unpacked, unless it is the host's.
    root: Option<PathBuf>,
}

impl Qemu {
    /// Finds, installs or unpacks one, and prints a line about it.
    ///
    /// # Errors
    /// None of these works: the error has the reasons.
    pub(super) fn get(sh: &Shell, apt: &Apt<'_>) -> Result<Self> {
        if let Some(qemu) = Self::of_the_host(sh) {
            println!("QEMU: {} found", qemu.program.display());
            return Ok(qemu);
        }
        let place = kernel::directory().join("qemu");
        if let Some(qemu) = Self::unpacked(sh, &place) {
            println!("QEMU: {} found", qemu.program.display());
            return Ok(qemu);
        }
        let installed = apt.install(&[PACKAGE], "tests on other kernels");
        match installed.and_then(|()| Self::of_the_host(sh).context("it does not run")) {
            Ok(qemu) => {
                println!("QEMU: installed {PACKAGE}");
                return Ok(qemu);
            }
            Err(why) => println!("QEMU: the host's packages stay as they are: {why:#}"),
        }
        let qemu = unpack(sh, apt, &place)
            .and_then(|()| Self::unpacked(sh, &place).context("what was unpacked does not run"))
            .context("QEMU can be neither installed nor unpacked")?;
        println!("QEMU: unpacked {}", qemu.program.display());
        Ok(qemu)
    }

    fn of_the_host(sh: &Shell) -> Option<Self> {
        let program = shell::find_program(PROGRAM)?;
        let qemu = Self {
            program,
            root: None,
        };
        qemu.runs(sh).then_some(qemu)
    }

    fn unpacked(sh: &Shell, root: &Path) -> Option<Self> {
        let qemu = Self {
            program: root.join("usr/bin").join(PROGRAM),
            root: Some(root.to_owned()),
        };
        qemu.runs(sh).then_some(qemu)
    }

    fn runs(&self, sh: &Shell) -> bool {
        let ask = self.with_libraries(sh.cmd(&self.program));
        let ask = ask.arg("--version").quiet();
        ask.ignore_stdout().ignore_stderr().run().is_ok()
    }

    /// The command line that runs it, for a command that runs another.
    pub(super) fn add_to<'a>(&self, cmd: Cmd<'a>) -> Cmd<'a> {
        let cmd = self.with_libraries(cmd.arg(&self.program));
        match &self.root {
            // The firmware.
            Some(root) => cmd.arg("-L").arg(root.join("usr/share/qemu")),
            None => cmd,
        }
    }

    fn with_libraries<'a>(&self, cmd: Cmd<'a>) -> Cmd<'a> {
        let Some(root) = &self.root else {
            return cmd;
        };
        let mut path = OsString::new();
        for directory in ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"] {
            path.push(root.join(directory));
            path.push(":");
        }
        path.push(root.join("usr/lib/x86_64-linux-gnu/pulseaudio"));
        let modules = root.join("usr/lib/x86_64-linux-gnu/qemu");
        cmd.env("LD_LIBRARY_PATH", path)
            .env("QEMU_MODULE_DIR", modules)
    }
}

/// Downloads QEMU and those packages that it needs and the host lacks, and unpacks them.
fn unpack(sh: &Shell, apt: &Apt<'_>, place: &Path) -> Result<()> {
    ensure!(Apt::is_here(), "this system has no apt-get");
    apt.update();
    // As on a system without any package, so that no installed one conflicts.
    let simulate = sh
        .cmd("apt-get")
        .args(["-o", "Dir::State::status=/dev/null", "--simulate"])
        .args(["install", "--no-install-recommends", PACKAGE]);
    let plan = simulate.quiet().ignore_stderr().read().unwrap_or_default();
    let installed = sh
        .cmd("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev} ${Package}\n"])
        .quiet()
        .ignore_stderr()
        .read()
        .context("asking dpkg what is installed")?;
    let packages = wanted(&plan, &installed);
    if packages.is_empty() {
        match apt.stale() {
            Some(why) => bail!(why),
            None => bail!("apt knows no package {PACKAGE}"),
        }
    }
    // An interruption must not leave a directory that looks complete.
    let half = place.with_extension("half");
    kernel::remove(&half)?;
    kernel::remove(place)?;
    let archives = half.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("making {}", archives.display()))?;
    let here = Shell::new().context("starting a shell")?;
    here.change_dir(&archives);
    println!("QEMU: downloading {} packages", packages.len());
    apt.download(&here, &packages)?;
    for archive in here.read_dir(&archives)? {
        let unpack = here.cmd("dpkg-deb").arg("-x").args([&archive, &half]);
        shell::run_quietly("unpacking QEMU", unpack)?;
    }
    kernel::remove(&archives)?;
    fs::rename(&half, place).with_context(|| format!("keeping {}", place.display()))
}

/// The packages of a plan such as `Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])` that are to
/// be downloaded: those of QEMU itself, and those that the host has not installed.
fn wanted<'p>(plan: &'p str, installed: &str) -> Vec<&'p str> {
    let installed: BTreeSet<&str> = installed
        .lines()
        .filter_map(|line| line.strip_prefix("ii ")?.split_whitespace().next())
        .collect();
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .filter(|package| {
            let own = OF_ONE_BUILD.iter().any(|start| package.starts_with(start));
            own || !installed.contains(package)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_and_missing_libraries_are_downloaded() {
        let plan = "Reading package lists...
Inst libc6 (2.36-9 Debian:12.15 [amd64])
Inst libfdt1 (1.6.1-4+b1 Debian:12.15 [amd64])
Inst seabios (1.16.2-1 Debian:12.15 [all])
Inst qemu-system-common (1:7.2 Debian:12.15 [amd64])
Inst qemu-system-x86 (1:7.2 Debian:12.15 [amd64])
Conf qemu-system-x86 (1:7.2 Debian:12.15 [amd64])";
        let qemu = ["seabios", "qemu-system-common", "qemu-system-x86"];
        let table = [
            ("nothing is there", "", {
                let mut all = vec!["libc6", "libfdt1"];
                all.extend(qemu);
                all
            }),
            (
                "a library is there",
                "ii  libc6\nii  libfdt1\n",
                qemu.to_vec(),
            ),
            (
                "a library was removed",
                "ii  libc6\nrc  libfdt1\n",
                [&["libfdt1"], &qemu[..]].concat(),
            ),
            (
                "another build's parts are there",
                "ii  libc6\nii  libfdt1\nii  qemu-system-common\nii  seabios\n",
                qemu.to_vec(),
            ),
        ];
        for (name, installed, expected) in table {
            assert_eq!(wanted(plan, installed), expected, "{name}");
        }
        assert!(wanted("E: Unable to locate package", "").is_empty());
    }
}
