//! `cargo xtask test`: checks the format, lints, runs all tests, and prints a summary line.

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    disk_space, ebpf,
    lanes::{self, Setting, TestProgram},
    launch::CargoProfile,
    package::Apt,
    report::RunReport,
    setup::{self, Kit},
    shell, stages, suite,
    tools::{self, Verb},
};

/// The tests to run.
#[derive(Clone, Copy, Debug)]
pub struct ChosenTests<'a> {
    /// The tests that need root.
    pub root: bool,
    /// Those in virtual machines, too.
    pub vm: bool,
    /// Also what takes too long for each change.
    pub all: bool,
    /// Only tests whose name contains this, and no lints.
    pub filter: Option<&'a str>,
    /// The number of runs.
    pub repeat: u32,
}

impl<'a> ChosenTests<'a> {
    /// Returns what is chosen of the stages after the tests of the host.
    fn stages(self) -> stages::ChosenStages<'a> {
        let Self {
            root,
            vm,
            all,
            filter,
            ..
        } = self;
        stages::ChosenStages {
            root,
            vm,
            all,
            filter,
        }
    }
}

/// Runs everything, also after failures. Returns whether everything succeeded.
///
/// # Errors
/// Rights, a program or a compiler are missing; nothing has been built.
pub fn run(sh: &Shell, chosen: ChosenTests<'_>) -> Result<bool> {
    let ChosenTests { root, filter, .. } = chosen;
    if root && !shell::is_root() {
        bail!(
            "the tests on real packets need root: run \
             `sudo --preserve-env env \"PATH=$PATH\" cargo xtask test`, \
             or leave them out with `cargo xtask test --no-root`"
        );
    }
    if filter.is_none() {
        disk_space::warn(sh, disk_space::TEST);
    }
    // Packages first: what is unavailable is reported before anything is built.
    let apt = Apt::new(sh);
    if root {
        tools::get(&apt, Verb::Test)?;
    }
    let mut report = RunReport::default();
    let stages = stages::prepare(sh, &apt, chosen.stages(), &mut report);
    let kit = setup::run(sh, &apt)?;
    // A filter asks for a quick answer.
    if filter.is_none() {
        setup::lints(sh, &apt)?;
        setup::kernel_lints(sh, &kit.toolchain, &apt);
        lint(sh, &kit, &mut report)?;
    }
    tests(sh, chosen, &mut report)?;
    stages::run(sh, stages, &mut report);
    if let Some(filter) = filter
        && !report.has_tests()
    {
        report.fail(&format!("no test has `{filter}` in its name"), 0.0);
    }
    if let Some(filter) = filter {
        for suite in report.suites() {
            if let Some(command) = direct(suite, filter) {
                println!("directly: {command}");
            }
        }
    }
    report.print();
    Ok(report.is_good())
}

/// Tests that need no root: the workspace's default members, the bench, the kernel object, and the fuzz targets on
/// their corpus.
const HARMLESS: [(&str, &[&str]); 4] = [
    ("cargo test", &[]),
    ("cargo test knock-bench", &["--package", "knock-bench"]),
    (
        "cargo test xtask",
        &["--package", "xtask", "--test", "object"],
    ),
    // Together with knock-user, so that its features are the same and it is built once; it has no such tests.
    (
        "cargo test knock-fuzz",
        &[
            "--package",
            "knock-fuzz",
            "--package",
            "knock-user",
            "--test",
            "targets",
            "--test",
            "mutate",
        ],
    ),
];

/// The crates that a registry can have.
const PUBLISHED: [&str; 6] = [
    "knock-common",
    "knock-sequence",
    "knock-wire",
    "knock-client",
    "knock-fleet",
    "knock-user",
];

/// Builds and runs the tests of the host.
fn tests(sh: &Shell, chosen: ChosenTests<'_>, report: &mut RunReport) -> Result<()> {
    let cargo_test = |packages: &[&str]| {
        let cmd = shell::cargo(sh).args(["test", "--no-fail-fast"]);
        cmd.args(packages)
    };
    let mut harmless = Vec::new();
    for (name, packages) in HARMLESS {
        if report.build(name, cargo_test(packages).arg("--no-run"), |_| {})? {
            harmless.push((name, packages));
        }
    }
    let mut programs = Vec::new();
    if chosen.root && !build_root_tests(sh, &mut programs, report)? {
        programs.clear();
    }
    let setting = setting(chosen.filter);
    for round in 1..=chosen.repeat {
        if chosen.repeat > 1 {
            println!("\nround {round} of {}", chosen.repeat);
        }
        // The next rounds run only the suites that have such tests.
        let mut with_tests = Vec::new();
        for (name, packages) in harmless {
            if report.tests(name, cargo_test(packages).args(chosen.filter))? {
                with_tests.push((name, packages));
            }
        }
        harmless = with_tests;
        programs = lanes::run("root tests", &programs, &setting, report)?;
    }
    Ok(())
}

/// Builds the tests on real packets and what they start; returns whether they built.
fn build_root_tests(
    sh: &Shell,
    programs: &mut Vec<TestProgram>,
    report: &mut RunReport,
) -> Result<bool> {
    let tests = shell::cargo(sh).args(["test", "--no-run", "--package", "knock-tests"]);
    let built = report.build("root tests", tests, |line| {
        let program = suite::executable(line);
        programs.extend(program.map(|(suite, path)| TestProgram {
            suite,
            path: shell::workspace().join(path),
        }));
    })?;
    let started = shell::cargo(sh)
        // With the package of the tests, so that dependencies have the same features and are built once.
        .args(["build", "--package", "knock-tests"])
        .args(["--package", "knock-user", "--bin", "knock-user"])
        .args(["--package", "knock-client", "--bin", "knock-client"]);
    Ok(built && report.build("programs of the root tests", started, |_| {})?)
}

/// Returns the environment of the tests on real packets.
fn setting(filter: Option<&str>) -> Setting {
    let programs = CargoProfile::Dev.directory();
    Setting {
        directory: shell::workspace().join("tests"),
        variables: vec![
            // With this variable a missing right is a failure and not a reason to skip.
            ("KNOCK_REQUIRE_ROOT", "1".into()),
            ("KNOCK_USER_BIN", programs.join("knock-user").into()),
            ("KNOCK_CLIENT_BIN", programs.join("knock-client").into()),
        ],
        // One at a time: the tests of a program share its bpffs.
        arguments: ["--test-threads=1"]
            .into_iter()
            .chain(filter)
            .map(str::to_owned)
            .collect(),
        limit: lanes::LIMIT,
    }
}

/// Returns the cargo command that runs the tests of a suite whose name contains `filter`.
fn direct(suite: &str, filter: &str) -> Option<String> {
    let (target, source) = suite.strip_suffix(')')?.split_once(" (")?;
    let is_root = shell::workspace().join("tests").join(source).exists();
    Some(match source {
        "src/lib.rs" => {
            let package = target.replace('_', "-");
            format!("cargo test --package {package} --lib {filter}")
        }
        "documentation" => {
            let package = target.replace('_', "-");
            format!("cargo test --package {package} --doc {filter}")
        }
        _ if source.starts_with("src/") => {
            let program = target.replace('_', "-");
            format!("cargo test --bin {program} {filter}")
        }
        _ if is_root => format!(
            "KNOCK_REQUIRE_ROOT=1 cargo test --package knock-tests --test {target} -- \
             --test-threads=1 {filter}"
        ),
        _ if shell::workspace().join("fuzz").join(source).exists() => {
            format!("cargo test --package knock-fuzz --test {target} {filter}")
        }
        _ => format!("cargo test --test {target} {filter}"),
    })
}

fn lint(sh: &Shell, kit: &Kit, report: &mut RunReport) -> Result<()> {
    const STRICT: [&str; 3] = ["--", "--deny", "warnings"];
    report.step("format", shell::cargo(sh).args(["fmt", "--all", "--check"]))?;
    report.step(
        "clippy",
        shell::cargo(sh)
            .args(["clippy", "--all-targets"])
            .args(STRICT),
    )?;
    let package = shell::cargo(sh).args(["package", "--offline", "--no-verify", "--allow-dirty"]);
    let package = PUBLISHED
        .iter()
        .fold(package, |cmd, name| cmd.args(["--package", name]));
    report.step("package", package)?;
    // Programs that run only on other kernels are not part of all targets.
    for (name, package, targets) in [
        ("clippy knock-tests", "knock-tests", &["--all-targets"][..]),
        (
            "clippy knock-tests, clock",
            "knock-tests",
            &["--test", "clock"],
        ),
        (
            "clippy knock-tests, drivers",
            "knock-tests",
            &["--test", "drivers", "--test", "tunnel_kinds"],
        ),
        (
            "clippy knock-tests, machine",
            "knock-tests",
            &[
                "--test",
                "machine",
                "--test",
                "packages",
                "--test",
                "containers",
                "--test",
                "fleet",
                "--test",
                "wine",
            ],
        ),
        ("clippy knock-bench", "knock-bench", &["--all-targets"]),
        ("clippy knock-fuzz", "knock-fuzz", &["--all-targets"]),
    ] {
        let clippy = shell::cargo(sh).args(["clippy", "--package", package]);
        report.step(name, clippy.args(targets).args(STRICT))?;
    }
    for (name, package) in [
        ("clippy knock-ebpf", &ebpf::PROGRAM),
        ("clippy knock-bench-ebpf", &ebpf::BASELINES),
    ] {
        match kit.toolchain.clippy(sh) {
            Some(clippy) => {
                let clippy =
                    ebpf::for_target(clippy, kit, package, &sh.current_dir(), &ebpf::target_dir());
                report.step(name, clippy.args(STRICT))?;
            }
            None => report.left_out(name, &format!("{} has no clippy", kit.toolchain.origin)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_can_be_run_directly() {
        let table = [
            (
                "scan (tests/scan.rs)",
                Some(
                    "KNOCK_REQUIRE_ROOT=1 cargo test --package knock-tests --test scan -- \
                     --test-threads=1 x",
                ),
            ),
            (
                "knock_user (src/lib.rs)",
                Some("cargo test --package knock-user --lib x"),
            ),
            (
                "knock_user (src/main.rs)",
                Some("cargo test --bin knock-user x"),
            ),
            ("model (tests/model.rs)", Some("cargo test --test model x")),
            (
                "targets (tests/targets.rs)",
                Some("cargo test --package knock-fuzz --test targets x"),
            ),
            (
                "knock_common (documentation)",
                Some("cargo test --package knock-common --doc x"),
            ),
            ("load on 6.1.0-56", None),
        ];
        for (suite, expected) in table {
            assert_eq!(direct(suite, "x").as_deref(), expected, "{suite}");
        }
    }
}
