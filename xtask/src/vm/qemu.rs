//! Finds QEMU on the host, installs it with apt if that removes nothing, or unpacks it below `target`.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell};

use super::unpacked;
use crate::{package::Apt, shell};

/// The processor of a machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Processor {
    /// x86-64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Processor {
    const fn program(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86",
            Self::Arm64 => "qemu-system-arm",
        }
    }

    /// Returns where it is unpacked.
    const fn directory(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu",
            Self::Arm64 => "qemu-arm64",
        }
    }
}

/// Packages that belong to one build of QEMU, and are taken together even if the host has some of them.
const OF_ONE_BUILD: [&str; 3] = ["qemu-", "seabios", "ipxe-qemu"];

/// A QEMU that runs.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// The directory to which it was unpacked, unless it is the host's.
    root: Option<PathBuf>,
}

impl Qemu {
    /// Finds, installs or unpacks QEMU, and prints a line about it.
    ///
    /// # Errors
    /// None of these works: the error has the reasons.
    pub(crate) fn get(sh: &Shell, apt: &Apt<'_>, processor: Processor) -> Result<Self> {
        let package = processor.package();
        if let Some(qemu) = Self::of_the_host(sh, processor) {
            println!("QEMU: {} found", qemu.program.display());
            return Ok(qemu);
        }
        let place = unpacked::directory().join(processor.directory());
        if let Some(qemu) = Self::unpacked(sh, &place, processor) {
            println!("QEMU: {} found", qemu.program.display());
            return Ok(qemu);
        }
        let installed = apt.install(&[package], "tests in virtual machines");
        match installed.and_then(|()| Self::of_the_host(sh, processor).context("it does not run")) {
            Ok(qemu) => {
                println!("QEMU: installed {package}");
                return Ok(qemu);
            }
            Err(why) => println!("QEMU: the host's packages stay as they are: {why:#}"),
        }
        let qemu = unpack(sh, apt, &place, package)
            .and_then(|()| {
                Self::unpacked(sh, &place, processor).context("what was unpacked does not run")
            })
            .context("QEMU can be neither installed nor unpacked")?;
        println!("QEMU: unpacked {}", qemu.program.display());
        Ok(qemu)
    }

    fn of_the_host(sh: &Shell, processor: Processor) -> Option<Self> {
        let program = shell::find_program(processor.program())?;
        let qemu = Self {
            program,
            root: None,
        };
        qemu.runs(sh).then_some(qemu)
    }

    fn unpacked(sh: &Shell, root: &Path, processor: Processor) -> Option<Self> {
        let qemu = Self {
            program: root.join("usr/bin").join(processor.program()),
            root: Some(root.to_owned()),
        };
        qemu.runs(sh).then_some(qemu)
    }

    fn runs(&self, sh: &Shell) -> bool {
        let ask = sh.cmd(&self.program).envs(self.variables());
        let ask = ask.arg("--version").quiet();
        ask.ignore_stdout().ignore_stderr().run().is_ok()
    }

    /// Returns the command line that runs it, for a command that runs another.
    pub(crate) fn add_to<'a>(&self, cmd: Cmd<'a>) -> Cmd<'a> {
        cmd.args(self.words()).envs(self.variables())
    }

    /// Returns the program and its first arguments.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = vec![self.program.clone().into()];
        if let Some(root) = &self.root {
            // The firmware.
            words.extend(["-L".into(), root.join("usr/share/qemu").into()]);
        }
        words
    }

    /// Returns the variables that it needs.
    pub(crate) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let Some(root) = &self.root else {
            return Vec::new();
        };
        let mut path = OsString::new();
        for directory in ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"] {
            path.push(root.join(directory));
            path.push(":");
        }
        path.push(root.join("usr/lib/x86_64-linux-gnu/pulseaudio"));
        let modules = root.join("usr/lib/x86_64-linux-gnu/qemu");
        vec![
            ("LD_LIBRARY_PATH", path),
            ("QEMU_MODULE_DIR", modules.into()),
        ]
    }
}

/// Downloads QEMU and those packages that it needs and the host lacks, and unpacks them.
fn unpack(sh: &Shell, apt: &Apt<'_>, place: &Path, package: &str) -> Result<()> {
    apt.update();
    let installed = sh
        .cmd("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev} ${Package}\n"])
        .quiet()
        .ignore_stderr()
        .read()
        .context("asking dpkg what is installed")?;
    let installed = installed_of(&installed);
    let is_wanted = |package: &str| is_wanted(package, &installed);
    unpacked::unpack(sh, apt, &[package], is_wanted, place)
}

/// Returns the packages in dpkg's list that are installed.
fn installed_of(list: &str) -> BTreeSet<&str> {
    list.lines()
        .filter_map(|line| line.strip_prefix("ii ")?.split_whitespace().next())
        .collect()
}

/// Returns whether a package is to be downloaded: those of QEMU itself, and those that the host has not installed.
fn is_wanted(package: &str, installed: &BTreeSet<&str>) -> bool {
    let own = OF_ONE_BUILD.iter().any(|start| package.starts_with(start));
    own || !installed.contains(package)
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
            let installed = installed_of(installed);
            let wanted: Vec<_> = unpacked::planned(plan)
                .filter(|package| is_wanted(package, &installed))
                .collect();
            assert_eq!(wanted, expected, "{name}");
        }
        assert_eq!(unpacked::planned("E: Unable to locate package").count(), 0);
    }
}
