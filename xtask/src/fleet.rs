//! `cargo xtask fleet`: knock-fleet, three members of Debian's etcd that are killed, cut off and restored, and hosts
//! that open together.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use xshell::Shell;

use crate::{
    lanes::{self, Setting, TestProgram},
    package::Apt,
    prepared,
    report::RunReport,
    shell, suite,
    tools::{self, Verb},
};

/// The package.
const PACKAGE: &str = "knock-fleet";
/// The tests of whole hosts.
const HOSTS: &str = "fleet";

/// After this time the program hangs.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Returns the number of tests that count as skipped where they can't run.
pub(crate) fn rows() -> u32 {
    prepared::declared(PACKAGE) + prepared::declared("tests/tests/fleet")
}

/// Runs the tests and prints a summary; returns whether everything succeeded.
///
/// # Errors
/// Root, or a program, is unavailable.
pub fn run(sh: &Shell, filter: Option<&str>) -> Result<bool> {
    let apt = Apt::new(sh);
    get(&apt)?;
    let mut report = RunReport::default();
    test(sh, filter, &mut report)?;
    report.print();
    Ok(report.is_good())
}

/// Finds or installs what building knock-fleet and its tests need.
///
/// # Errors
/// Root, or a program, is unavailable.
pub fn get(apt: &Apt<'_>) -> Result<()> {
    ensure!(shell::is_root(), "network namespaces of a fleet need root");
    tools::get(apt, Verb::Fleet)
}

/// Builds, lints and runs the tests and adds their results.
///
/// # Errors
/// A program can't be started.
pub fn test(sh: &Shell, filter: Option<&str>, report: &mut RunReport) -> Result<()> {
    let cargo = |verb: &str| shell::cargo(sh).args([verb, "--package", PACKAGE]);
    if filter.is_none() {
        for (name, targets) in [
            ("clippy knock-fleet", &["--all-targets"][..]),
            ("clippy knock-fleet, etcd", &["--test", "etcd"]),
        ] {
            let clippy = cargo("clippy").args(targets);
            report.step(name, clippy.args(["--", "--deny", "warnings"]))?;
        }
    }
    let mut found = None;
    let tests = cargo("test").args(["--no-run", "--bins", "--test", "etcd"]);
    let built = report.build("tests of knock-fleet", tests, |line| {
        let program = suite::executable(line);
        found = program
            .filter(|(suite, _)| suite.starts_with("etcd"))
            .or(found.take());
    })?;
    if !built {
        return Ok(());
    }
    report.tests("cargo test knock-fleet", cargo("test").args(filter))?;
    let Some((suite, path)) = found else {
        bail!("cargo did not report where the tests of knock-fleet are");
    };
    let program = TestProgram {
        suite,
        path: shell::workspace().join(path),
    };
    let setting = Setting {
        directory: shell::workspace().join(PACKAGE),
        variables: Vec::new(),
        arguments: ["--test-threads=1"]
            .into_iter()
            .chain(filter)
            .map(str::to_owned)
            .collect(),
        limit: LIMIT,
    };
    lanes::run("fleet", &[program], &setting, report)?;
    test_hosts(sh, filter, report)
}

/// Builds and runs the tests of whole hosts, and adds their results.
fn test_hosts(sh: &Shell, filter: Option<&str>, report: &mut RunReport) -> Result<()> {
    let Some(program) = prepared::build(sh, HOSTS, report)? else {
        return Ok(());
    };
    // It is started by the daemon beside which it is.
    let child = shell::cargo(sh).args(["build", "--package", PACKAGE]);
    if !report.build("knock-fleet of the hosts", child, |_| {})? {
        return Ok(());
    }
    let filter = filter.map(str::to_owned).into_iter().collect();
    let setting = prepared::setting(Vec::new(), filter, LIMIT);
    lanes::run("hosts of a fleet", &[program], &setting, report)?;
    Ok(())
}
