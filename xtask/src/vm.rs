//! `cargo xtask vm`: runs root tests on other kernels, each in a virtual machine.
//!
//! ```text
//! Debian's kernel packages ─ kernel.rs ─┐
//! test programs (profile vm) ───────────┴ image.rs ─▶ initramfs ─ machine.rs ─▶ lines ─ outcome.rs ─▶ rows
//! ```
//!
//! The other processor, aarch64, has Debian's kernel 6.1 and the suites that depend on a processor (`arm64.rs`).
//!
//! The machine has no disk and no network. Its first process is `vm/init.sh`, which runs the suites one after
//! the other; their output arrives over the serial line and is parsed like that of any `cargo test`.

mod arm64;
pub(crate) mod image;
pub(crate) mod kernel;
mod machine;
mod outcome;
pub(crate) mod qemu;
mod suites;
mod unpacked;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::Shell;

use crate::{
    dist::{Architecture, Build},
    ebpf,
    package::Apt,
    report::RunReport,
    shell, suite,
    tools::{self, Verb},
};

use image::RootImage;
use kernel::{Flavour, KernelPackage};
use machine::{Accelerator, Machine};
use qemu::{Processor, Qemu};
use suites::{LESS, MODULES, MOUNT_POINTS, Selected};

/// The kernels that `cargo xtask test` boots: the oldest that is supported, and the next one with
/// long-term support.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Programs that tests start.
const PROGRAMS: [&str; 5] = ["busybox", "ip", "ethtool", "nft", "nstat"];

/// Those that only suites for x86-64 start.
const MORE_PROGRAMS: [&str; 2] = ["wg", "xdp-filter"];

/// The programs that xdp-filter loads into the kernel.
const XDP_OBJECTS: &str = "/usr/lib/x86_64-linux-gnu/bpf";

/// The kernels, and the program that runs them.
#[derive(Debug)]
pub struct Machines {
    processor: Processor,
    qemu: Qemu,
    kernels: Vec<KernelPackage>,
}

/// The name of the machine with another processor, beside the versions of kernels.
pub const ARM64: &str = "arm64";

/// The kernel of that machine.
const ARM64_SERIES: &str = "6.1";

/// Boots kernels and prints a summary; returns whether everything succeeded.
///
/// # Errors
/// A kernel, QEMU or another program is unavailable.
pub fn run(sh: &Shell, wanted: &[String]) -> Result<bool> {
    let wanted: Vec<&str> = match wanted {
        [] => SERIES.to_vec(),
        _ => wanted.iter().map(String::as_str).collect(),
    };
    let apt = Apt::new(sh);
    let (others, wanted): (Vec<&str>, Vec<&str>) =
        wanted.into_iter().partition(|name| *name == ARM64);
    let mut machines = Vec::new();
    if !wanted.is_empty() {
        machines.push(get(sh, &apt, &wanted)?);
    }
    if !others.is_empty() {
        machines.push(get_arm64(sh, &apt)?);
    }
    ebpf::record::prepare(sh, &apt)?;
    let mut report = RunReport::default();
    for machines in machines {
        test(sh, &machines, &mut report)?;
    }
    report.print();
    Ok(report.is_good())
}

/// Finds or downloads what the tests on other kernels need, and prints which.
///
/// # Errors
/// A kernel, QEMU or another program is unavailable.
pub fn get(sh: &Shell, apt: &Apt<'_>, wanted: &[&str]) -> Result<Machines> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels to test on are there for x86-64 only"
    );
    tools::get(apt, Verb::Vm)?;
    Architecture::Amd64.prepare(sh)?;
    let processor = Processor::Amd64;
    let qemu = Qemu::get(sh, apt, processor)?;
    let kernel = |series: &&str| kernel::get(sh, apt, series, Flavour::Cloud);
    let kernels = wanted.iter().map(kernel).collect::<Result<_>>()?;
    Ok(Machines {
        processor,
        qemu,
        kernels,
    })
}

/// Finds or downloads what the tests on aarch64 need, and prints which.
///
/// # Errors
/// The kernel, QEMU or another program is unavailable.
pub fn get_arm64(sh: &Shell, apt: &Apt<'_>) -> Result<Machines> {
    tools::get(apt, Verb::Vm)?;
    Architecture::Arm64.prepare(sh)?;
    let processor = Processor::Arm64;
    let qemu = Qemu::get(sh, apt, processor)?;
    let other = arm64::shell(sh)?;
    let apt = Apt::new(&other);
    let kernels = vec![kernel::get(&other, &apt, ARM64_SERIES, Flavour::Arm64)?];
    Ok(Machines {
        processor,
        qemu,
        kernels,
    })
}

/// Returns how many suites run on all kernels of [`SERIES`].
pub fn suites() -> u32 {
    let suites = suites::suites(Processor::Amd64).len() * SERIES.len();
    u32::try_from(suites).unwrap_or(u32::MAX)
}

/// Returns how many suites run on aarch64.
pub fn arm64_suites() -> u32 {
    u32::try_from(suites::suites(Processor::Arm64).len()).unwrap_or(u32::MAX)
}

/// Runs the suites on each kernel and adds their results.
///
/// # Errors
/// The programs can't be packed, or QEMU does not start.
pub fn test(sh: &Shell, machines: &Machines, report: &mut RunReport) -> Result<()> {
    let Machines {
        processor,
        qemu,
        kernels,
    } = machines;
    let suites = suites::suites(*processor);
    let Some(image) = build(sh, machines, &suites, report)? else {
        return Ok(());
    };
    let accelerator = match processor {
        Processor::Amd64 => machine::accelerator(sh, qemu, kernels, &image)?,
        Processor::Arm64 => Accelerator::Emulation,
    };
    for kernel in kernels {
        let machine = Machine {
            processor: *processor,
            qemu,
            kernel,
            image: &image,
            accelerator,
        };
        let expected = suites.iter().map(|suite| outcome::ExpectedSuite {
            name: suite.target,
            tests: suite.tests.len(),
        });
        let log = machine.run(sh)?;
        report.add(log.rows(&kernel.release(), expected));
    }
    Ok(())
}

/// Returns the processor of the programs.
fn architecture(processor: Processor) -> Architecture {
    match processor {
        Processor::Amd64 => Architecture::Amd64,
        Processor::Arm64 => Architecture::Arm64,
    }
}

/// Builds the programs and packs them; `None` if they don't build, which is reported.
fn build(
    sh: &Shell,
    machines: &Machines,
    suites: &[Selected],
    report: &mut RunReport,
) -> Result<Option<PathBuf>> {
    // Without libraries: the packages have the same programs.
    let architecture = architecture(machines.processor);
    let directory = architecture.directory(Build::Quick);
    let cargo = |verb: &str| {
        let cmd = architecture.cargo(sh, &[]);
        let cmd = cmd.args([verb, "--profile", Build::Quick.profile()]);
        cmd.args(["--target", architecture.target()])
    };
    let mut tests = cargo("test").args(["--no-run", "--package", "knock-tests"]);
    for suite in suites {
        tests = tests.args(["--test", suite.target]);
    }
    let mut executables = Vec::new();
    let built = report.build("programs for the kernels", tests, |line| {
        executables.extend(suite::executable(line).map(|(_suite, path)| path));
    })?;
    let programs = cargo("build").args(["--package", "knock-user", "--package", "knock-client"]);
    if !built || !report.build("programs for the kernels", programs, |_| {})? {
        return Ok(None);
    }

    let name = format!("image-{}", architecture.debian());
    let place = unpacked::directory().join(name);
    let image = RootImage::new(sh, &place, &MOUNT_POINTS)?;
    let mut script = LESS.to_owned();
    for suite in suites {
        let target = suite.target;
        let start = format!("{target}-");
        let is_it = |path: &&PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&start))
        };
        let Some(path) = executables.iter().find(is_it) else {
            bail!("cargo did not report where the test program {target} is");
        };
        image.program(&shell::workspace().join(path), &format!("tests/{target}"))?;
        script += &suite.line();
    }
    for program in ["knock-user", "knock-client"] {
        image.program(&directory.join(program), &format!("bin/{program}"))?;
    }
    match machines.processor {
        Processor::Amd64 => {
            for program in PROGRAMS.iter().chain(&MORE_PROGRAMS) {
                let path = shell::find_program(program).with_context(|| format!("no {program}"))?;
                image.program(&path, &format!("bin/{program}"))?;
            }
            image.directory(Path::new(XDP_OBJECTS))?;
        }
        Processor::Arm64 => arm64::programs(&arm64::shell(sh)?, &PROGRAMS, &place)?,
    }
    for kernel in &machines.kernels {
        image.modules(kernel, &MODULES)?;
    }
    image.file("init", include_str!("vm/init.sh"))?;
    image.file("suites", &script)?;
    image.pack().map(Some)
}
