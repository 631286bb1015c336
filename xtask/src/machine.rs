//! `cargo xtask machine`: boots a Debian 12 with systemd in QEMU, installs the package there, and tests it.
//!
//! ```text
//! mmdebstrap ─ debian.rs ─▶ target/machine/root, pristine ─┐
//! packages, settings (disk.sh) ────────────────────────────┴─▶ disk ───┐
//! kernels, their modules, init.sh ─▶ initramfs ────────────────────────┴─▶ tests/tests/machine
//! ```
//!
//! This makes what the machine is made of; the test program starts QEMU itself, several times. It runs in namespaces
//! of its own, as the other root tests do, and is the second machine: a tap connects it to the card of the first one.

mod disk;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use xshell::Shell;

use crate::{
    debian::{self, System},
    dist::{self, Build},
    ebpf, lanes,
    package::Apt,
    prepared,
    report::RunReport,
    shell,
    tools::{self, Verb},
    vm::{
        kernel::{self, Flavour, KernelPackage},
        qemu::{Processor, Qemu},
    },
};

/// A Debian that systemd boots, with what the tests of the machine start.
pub(crate) const SYSTEM: System = System {
    name: "root",
    packages: "systemd,systemd-sysv,dbus,udev,kmod,adduser,openssh-server,iproute2,procps,ethtool",
};

/// Debian 12's own kernel, and the next one with long-term support for all hardware: smaller builds have no e1000e.
const KERNELS: [(&str, Flavour); 2] = [("6.1", Flavour::Cloud), ("6.12", Flavour::Full)];

/// The test program.
const TARGET: &str = "machine";

/// After this time the program hangs. On two busy cores without KVM it takes a third of it.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// The tests that count as skipped where the machine can't be had: without those of other cards, and those alone.
pub const ROWS: u32 = 11;
/// See [`ROWS`].
pub const ROWS_OF_CARDS: u32 = 11;

/// The part of their names that tests of other cards have.
const OTHER_CARDS: [&str; 2] = ["e1000e", "vmxnet3"];

/// Which tests run.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Those whose name contains this, or all.
    Named(Option<&'a str>),
    /// Those with virtio-net.
    WithoutOtherCards,
    /// Those with the other cards.
    OfOtherCards,
}

impl Rows<'_> {
    /// Returns the arguments of libtest.
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Named(name) => name.into_iter().map(str::to_owned).collect(),
            Self::WithoutOtherCards => OTHER_CARDS
                .iter()
                .flat_map(|card| ["--skip".to_owned(), (*card).to_owned()])
                .collect(),
            Self::OfOtherCards => OTHER_CARDS.map(str::to_owned).to_vec(),
        }
    }
}

/// The kernels, and the program that runs them.
#[derive(Debug)]
pub struct MachineParts {
    qemu: Qemu,
    kernels: Vec<KernelPackage>,
}

/// Boots the machine and prints a summary; returns whether everything succeeded.
///
/// # Errors
/// Root, QEMU, a kernel or another program is unavailable.
pub fn run(sh: &Shell, filter: Option<&str>) -> Result<bool> {
    let apt = Apt::new(sh);
    let parts = get(sh, &apt)?;
    ebpf::record::prepare(sh, &apt)?;
    let mut report = RunReport::default();
    test(sh, &parts, Rows::Named(filter), &mut report)?;
    if !report.has_tests() {
        let filter = filter.unwrap_or_default();
        report.fail(&format!("no row has `{filter}` in its name"), 0.0);
    }
    report.print();
    Ok(report.is_good())
}

/// Finds or downloads what the machine is made of, and prints which.
///
/// # Errors
/// Root, a kernel, QEMU or another program is unavailable.
pub fn get(sh: &Shell, apt: &Apt<'_>) -> Result<MachineParts> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the machine has an x86-64 processor, and so has to be its host"
    );
    ensure!(
        shell::is_root(),
        "the machine's file system and its network need root"
    );
    tools::get(apt, Verb::Machine)?;
    dist::prepare_tests(sh)?;
    let qemu = Qemu::get(sh, apt, Processor::Amd64)?;
    let kernel = |(series, flavour)| kernel::get(sh, apt, series, flavour);
    let kernels = KERNELS.into_iter().map(kernel).collect::<Result<_>>()?;
    Ok(MachineParts { qemu, kernels })
}

/// Makes the machine, runs its tests and adds their results.
///
/// # Errors
/// The packages don't build, or the disk can't be made.
pub fn test(
    sh: &Shell,
    parts: &MachineParts,
    rows: Rows<'_>,
    report: &mut RunReport,
) -> Result<()> {
    let base = directory();
    let packages = debs(&dist::for_tests(sh, Build::Published)?)?;
    let root = debian::get(sh, &base, SYSTEM).context("a Debian for the machine can't be made")?;
    let disk = disk::make(sh, &base, &root, &parts.kernels, &packages)?;
    let initramfs = disk::initramfs(sh, &base, &parts.kernels)?;
    let Some(program) = prepared::build(sh, TARGET, report)? else {
        return Ok(());
    };
    let kernels = KERNELS.iter().zip(&parts.kernels);
    let kernels: serde_json::Map<_, _> = kernels
        .map(|((series, _), kernel)| ((*series).to_owned(), json!(kernel.image())))
        .collect();
    let text = |word: OsString| word.to_string_lossy().into_owned();
    let words = parts.qemu.words().into_iter().map(text);
    let variables = parts.qemu.variables().into_iter();
    let variables = variables.map(|(name, value)| (name.to_owned(), json!(text(value))));
    let description = json!({
        "place": base,
        "disk": disk,
        "initramfs": initramfs,
        "kernels": kernels,
        "qemu": words.collect::<Vec<_>>(),
        "variables": variables.collect::<serde_json::Map<_, _>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "earlier": dist::EARLIER,
    });
    let path = base.join("machine.json");
    fs::write(&path, description.to_string())
        .with_context(|| format!("writing {}", path.display()))?;
    let variables = vec![("KNOCK_MACHINE", path.into())];
    let setting = prepared::setting(variables, rows.arguments(), LIMIT);
    let ran = lanes::run("machine", &[program], &setting, report);
    disk::remove(&base)?;
    ran.map(drop)
}

/// Returns the directory of everything that the machine is made of.
pub(crate) fn directory() -> PathBuf {
    shell::target_dir().join("machine")
}

/// Returns the Debian packages in a directory.
fn debs(directory: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", directory.display());
    let entries = fs::read_dir(directory).with_context(reading)?;
    let paths = entries.map(|entry| Ok(entry.with_context(reading)?.path()));
    let paths: Vec<_> = paths.collect::<Result<_>>()?;
    let is_deb = |path: &PathBuf| path.extension().is_some_and(|is| is == "deb");
    Ok(paths.into_iter().filter(is_deb).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_those_of_the_program() {
        const SOURCES: &str = "tests/tests/machine";
        let main = shell::workspace().join(SOURCES).join("main.rs");
        let main = fs::read_to_string(main).unwrap();
        // Those of a macro, which are there once in the source and once for each card in the program.
        let of_each = main.matches("\n                #[test]").count();
        let cards = main.matches("card!(").count();
        let repeated = u32::try_from(of_each * (cards - 1)).unwrap();
        let all = prepared::declared(SOURCES) + repeated;
        assert_eq!((of_each, cards, all), (5, 3, ROWS + ROWS_OF_CARDS));
    }
}
