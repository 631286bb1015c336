//! `cargo xtask vm`: runs root tests on other kernels, each in a virtual machine.
//!
//! ```text
//! Debian's kernel packages ─ kernel.rs ─┐
//! test programs (profile vm) ───────────┴ image.rs ─▶ initramfs ─ machine.rs ─▶ lines ─ outcome.rs ─▶ rows
//! ```
//!
//! The machine has no disk and no network. Its first process is `vm/init.sh`, which runs the suites one after
//! the other; their output arrives over the serial line and is parsed like that of any `cargo test`.

mod image;
mod kernel;
mod machine;
mod outcome;
mod qemu;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use xshell::Shell;

use crate::{
    ebpf,
    package::Apt,
    report::RunReport,
    shell, suite,
    tools::{self, Verb},
};

use image::Image;
use kernel::Kernel;
use machine::Machine;
use qemu::Qemu;

/// The kernels that `cargo xtask test` boots: the oldest that is supported, and the next one with
/// long-term support.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];

/// The cargo profile of the programs that run in the machine; Cargo.toml has the reason.
const PROFILE: &str = "vm";

/// A test program, and which of its tests run in the machine.
struct Selected {
    target: &'static str,
    /// All of them if the list is empty.
    tests: &'static [&'static str],
    /// Whether its output is shown if it passes.
    shows: bool,
}

impl Selected {
    const fn all(target: &'static str) -> Self {
        Self::some(target, &[])
    }

    const fn some(target: &'static str, tests: &'static [&'static str]) -> Self {
        Self {
            target,
            tests,
            shows: false,
        }
    }

    const fn shown(self) -> Self {
        Self {
            shows: true,
            ..self
        }
    }

    /// Its line in the script of `vm/init.sh`.
    fn line(&self) -> String {
        let mut line = format!("suite {}", self.target);
        if self.shows {
            line += " --show-output";
        }
        if !self.tests.is_empty() {
            line += " --exact ";
            line += &self.tests.join(" ");
        }
        line + "\n"
    }
}

/// The suites, in the order in which they run, without tests that take long under emulation or need an exact clock.
const SUITES: &[Selected] = &[
    Selected::some("load", &["the_largest_configuration_loads"]).shown(),
    Selected::all("differential").shown(),
    Selected::some(
        "otp",
        &["the_kernel_derives_the_same_knocks_as_the_library"],
    ),
    Selected::some(
        "knock",
        &[
            "every_grant_has_one_opening_and_one_end",
            "our_client_connects_at_its_first_attempt",
            "a_packet_right_behind_the_last_knock_gets_in",
        ],
    ),
    Selected::some(
        "handshake",
        &[
            "forged_packets_change_nothing",
            "knocks_count_in_the_order_of_their_completed_handshakes",
            "connections_to_wrong_ports_end_the_attempt",
        ],
    ),
    Selected::some("start", &["existing_connections_continue_after_a_start"]),
    Selected::some(
        "upgrade",
        &[
            "a_grant_is_carried_over_by_its_door",
            "a_map_of_another_shape_is_refused",
        ],
    )
    .shown(),
    Selected::all("clock"),
    Selected::all("drivers").shown(),
    // Last, because some of its rows need a machine that has run for a while.
    Selected::all("verdicts"),
];

/// Fewer frames than on the host, and longer pauses of unauthorized sources: the machine is ten times slower.
const LESS: &str = "export KNOCK_FRAMES=4000 KNOCK_PAUSE_MS=50\n";

/// The kernels, and the program that runs them.
#[derive(Debug)]
pub struct Machines {
    qemu: Qemu,
    kernels: Vec<Kernel>,
}

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
    let machines = get(sh, &apt, &wanted)?;
    ebpf::record::prepare(sh, &apt)?;
    let mut report = RunReport::default();
    test(sh, &machines, &mut report)?;
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
    let qemu = Qemu::get(sh, apt)?;
    let kernel = |series: &&str| kernel::get(sh, apt, series);
    let kernels = wanted.iter().map(kernel).collect::<Result<_>>()?;
    Ok(Machines { qemu, kernels })
}

/// How many suites run on all kernels of [`SERIES`].
pub fn suites() -> u32 {
    u32::try_from(SUITES.len() * SERIES.len()).unwrap_or(u32::MAX)
}

/// Runs the suites on each kernel and adds their results.
///
/// # Errors
/// The programs can't be packed, or QEMU does not start.
pub fn test(sh: &Shell, machines: &Machines, report: &mut RunReport) -> Result<()> {
    let Machines { qemu, kernels } = machines;
    let Some(image) = build(sh, kernels, report)? else {
        return Ok(());
    };
    let accelerator = machine::accelerator(sh, qemu, kernels, &image)?;
    for kernel in kernels {
        let machine = Machine {
            qemu,
            kernel,
            image: &image,
            accelerator,
        };
        let expected = SUITES.iter().map(|suite| outcome::ExpectedSuite {
            name: suite.target,
            tests: suite.tests.len(),
        });
        let log = machine.run(sh)?;
        report.add(log.rows(kernel.release(), expected));
    }
    Ok(())
}

/// Builds the programs and packs them; `None` if they don't build, which is reported.
fn build(sh: &Shell, kernels: &[Kernel], report: &mut RunReport) -> Result<Option<PathBuf>> {
    let mut tests = shell::cargo(sh).args(["test", "--no-run", "--profile", PROFILE]);
    tests = tests.args(["--package", "knock-tests"]);
    for suite in SUITES {
        tests = tests.args(["--test", suite.target]);
    }
    let mut executables = Vec::new();
    let built = report.build("programs for the kernels", tests, |line| {
        executables.extend(suite::executable(line).map(|(_suite, path)| path));
    })?;
    let programs = shell::cargo(sh)
        .args(["build", "--profile", PROFILE])
        .args(["--package", "knock-user", "--package", "knock-client"]);
    if !built || !report.build("programs for the kernels", programs, |_| {})? {
        return Ok(None);
    }

    let image = Image::new(sh, &kernel::directory().join("image"))?;
    let mut script = LESS.to_owned();
    for suite in SUITES {
        let target = suite.target;
        let start = format!("{target}-");
        let is_it = |path: &&PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&start))
        };
        let Some(path) = executables.iter().find(is_it) else {
            bail!("cargo did not say where the test program {target} is");
        };
        image.program(&shell::workspace().join(path), &format!("tests/{target}"))?;
        script += &suite.line();
    }
    let directory = shell::target_dir().join(PROFILE);
    for program in ["knock-user", "knock-client"] {
        image.program(&directory.join(program), &format!("bin/{program}"))?;
    }
    for program in ["busybox", "ip", "ethtool", "nft", "nstat"] {
        let path = shell::find_program(program).with_context(|| format!("no {program}"))?;
        image.program(&path, &format!("bin/{program}"))?;
    }
    for kernel in kernels {
        image.modules(kernel)?;
    }
    image.file("init", include_str!("vm/init.sh"))?;
    image.file("suites", &script)?;
    image.pack().map(Some)
}
