//! `cargo xtask containers`: Debian's container engines, whose published ports doors open.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use xshell::Shell;

use crate::{
    ebpf, lanes,
    package::Apt,
    prepared,
    report::RunReport,
    shell,
    tools::{self, Verb},
};

/// The test program.
const TARGET: &str = "containers";

/// What podman only recommends, and is not on the path.
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// After this time the program hangs.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// The sources of the tests.
const SOURCES: &str = "tests/tests/containers";

/// Returns the number of tests that count as skipped where they can't run.
pub(crate) fn rows() -> u32 {
    prepared::declared(SOURCES)
}

/// Runs the tests and prints a summary; returns whether everything succeeded.
///
/// # Errors
/// Root, or a program, is unavailable.
pub fn run(sh: &Shell) -> Result<bool> {
    let apt = Apt::new(sh);
    get(&apt)?;
    ebpf::record::prepare(sh, &apt)?;
    let mut report = RunReport::default();
    test(sh, &mut report)?;
    report.print();
    Ok(report.is_good())
}

/// Finds or installs what the tests need.
///
/// # Errors
/// Root, or a program, is unavailable.
pub fn get(apt: &Apt<'_>) -> Result<()> {
    ensure!(
        shell::is_root(),
        "container engines and network namespaces need root"
    );
    tools::get(apt, Verb::Containers)?;
    if !Path::new(NETAVARK).is_file() {
        apt.install(&["netavark"], "podman makes networks with it")?;
    }
    ensure!(Path::new(NETAVARK).is_file(), "there is no {NETAVARK}");
    Ok(())
}

/// Builds and runs the tests and adds their results.
///
/// # Errors
/// A program can't be started.
pub fn test(sh: &Shell, report: &mut RunReport) -> Result<()> {
    let Some(program) = prepared::build(sh, TARGET, report)? else {
        return Ok(());
    };
    let setting = prepared::setting(Vec::new(), Vec::new(), LIMIT);
    lanes::run("container engines", &[program], &setting, report)?;
    Ok(())
}
