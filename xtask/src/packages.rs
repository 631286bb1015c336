//! `cargo xtask packages`: builds packages and archives, and installs them in pristine systems.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use crate::{
    debian,
    dist::{self, Build},
    ebpf, fresh, lanes, machine,
    package::Apt,
    prepared,
    report::RunReport,
    shell,
    tools::{self, Verb},
};

/// The test program.
const TARGET: &str = "packages";

/// After this time the program hangs.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// The sources of the tests.
const SOURCES: &str = "tests/tests/packages";

/// Returns the number of tests that count as skipped where they can't run.
pub(crate) fn rows() -> u32 {
    prepared::declared(SOURCES)
}

/// Runs the tests and prints a summary; returns whether everything succeeded.
///
/// # Errors
/// Root, or a program, is unavailable.
pub fn run(sh: &Shell, filter: Option<&str>) -> Result<bool> {
    let apt = Apt::new(sh);
    get(sh, &apt)?;
    ebpf::record::prepare(sh, &apt)?;
    let mut report = RunReport::default();
    test(sh, filter, Build::Quick, &mut report)?;
    if !report.has_tests() {
        let filter = filter.unwrap_or_default();
        report.fail(&format!("no test has `{filter}` in its name"), 0.0);
    }
    report.print();
    Ok(report.is_good())
}

/// Finds or installs what the tests need.
///
/// # Errors
/// Root, or a program, is unavailable.
pub fn get(sh: &Shell, apt: &Apt<'_>) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the packages that are tested are those for x86-64"
    );
    ensure!(
        shell::is_root(),
        "packages are installed in pristine systems, whose mounts need root"
    );
    tools::get(apt, Verb::Packages)?;
    dist::prepare_tests(sh)
}

/// Builds packages and systems, runs the tests and adds their results.
///
/// # Errors
/// The packages don't build, or a system can't be made.
pub fn test(sh: &Shell, filter: Option<&str>, build: Build, report: &mut RunReport) -> Result<()> {
    let packages = dist::for_tests(sh, build)?;
    let making = "a pristine system can't be made";
    let minimal = debian::get(sh, &fresh::directory(), fresh::SYSTEM).context(making)?;
    let with_systemd = debian::get(sh, &machine::directory(), machine::SYSTEM).context(making)?;
    let Some(program) = prepared::build(sh, TARGET, report)? else {
        return Ok(());
    };
    let variables = vec![
        ("KNOCK_PACKAGES", packages.into()),
        ("KNOCK_PRISTINE", minimal.into()),
        ("KNOCK_PRISTINE_SYSTEMD", with_systemd.into()),
    ];
    let filter = filter.into_iter().map(str::to_owned).collect();
    let setting = prepared::setting(variables, filter, LIMIT);
    lanes::run("packages", &[program], &setting, report)?;
    Ok(())
}
