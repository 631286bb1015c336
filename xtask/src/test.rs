//! `cargo xtask test`: format check, lints, all tests, and one line that sums them up.

use anyhow::{Result, bail};
use xshell::{Cmd, Shell};

use crate::{
    ebpf,
    package::Apt,
    report::Report,
    setup::{self, Kit},
    shell,
    tools::{self, Verb},
    vm,
};

/// What is to run.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// The tests that need root.
    pub root: bool,
    /// Those on other kernels, too.
    pub vm: bool,
    /// Only tests whose name contains this, and no lints.
    pub filter: Option<&'a str>,
    /// How often they run.
    pub repeat: u32,
}

impl Chosen<'_> {
    /// Why nothing runs on other kernels, if so.
    fn without_vm(self) -> Option<String> {
        if !self.vm {
            return Some("--no-vm".to_owned());
        }
        if !self.root {
            return Some("--no-root".to_owned());
        }
        let filter = self.filter?;
        Some(format!("only tests named `{filter}`"))
    }
}

/// Runs everything, going on after failures. Returns whether all is well.
///
/// # Errors
/// The rights, a program or a compiler is missing: nothing was built then.
pub fn run(sh: &Shell, chosen: Chosen<'_>) -> Result<bool> {
    let Chosen { root, filter, .. } = chosen;
    if root && !shell::is_root() {
        bail!(
            "the tests on real packets need root: run \
             `sudo --preserve-env env \"PATH=$PATH\" cargo xtask test`, \
             or leave them out with `cargo xtask test --no-root`"
        );
    }
    // First what apt installs: what can't be had is told before anything is built.
    let apt = Apt::new(sh);
    if root {
        tools::get(&apt, Verb::Test)?;
    }
    let without_vm = chosen.without_vm();
    let machines = match without_vm {
        None => vm::get(sh, &apt, &vm::SERIES).map(Some).inspect_err(|why| {
            println!("kernels: skipped: {}", shell::in_short(why));
        }),
        Some(_) => Ok(None),
    };
    let kit = setup::run(sh, &apt)?;
    let mut report = Report::default();
    // Who asks for some tests wants their answer now.
    if filter.is_none() {
        setup::lints(sh, &apt)?;
        setup::kernel_lints(sh, &kit.toolchain, &apt);
        lint(sh, &kit, &mut report)?;
    }
    tests(sh, chosen, &mut report)?;
    let name = format!("kernels {}", vm::SERIES.join(", "));
    match (without_vm, machines) {
        (Some(why), _) => report.left_out(&name, &why),
        (None, Ok(None)) => {}
        (None, Ok(Some(machines))) => {
            if let Err(why) = vm::test(sh, &machines, &mut report) {
                report.fail(&format!("{name}: {}", shell::in_short(&why)), 0.0);
            }
        }
        (None, Err(why)) => report.skipped(&name, vm::suites(), &shell::in_short(&why)),
    }
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

/// Tests that one `cargo test` builds and runs.
struct Group {
    name: &'static str,
    /// A package; the workspace's default members if there is none.
    package: Option<&'static str>,
    root: bool,
}

const GROUPS: [Group; 3] = [
    Group {
        name: "cargo test",
        package: None,
        root: false,
    },
    Group {
        name: "cargo test knock-bench",
        package: Some("knock-bench"),
        root: false,
    },
    Group {
        name: "root tests",
        package: Some("knock-tests"),
        root: true,
    },
];

impl Group {
    fn cargo_test<'a>(&self, sh: &'a Shell) -> Cmd<'a> {
        let cmd = shell::cargo(sh).args(["test", "--no-fail-fast"]);
        match self.package {
            Some(package) => cmd.args(["--package", package]),
            None => cmd,
        }
    }

    /// Runs its tests; returns whether there were any.
    fn run(&self, sh: &Shell, filter: Option<&str>, report: &mut Report) -> Result<bool> {
        let cmd = self.cargo_test(sh);
        if self.root {
            // The variable says to the tests that a missing right is a failure and not a reason to
            // skip. One at a time: they share the machine's network namespaces and bpffs.
            let cmd = cmd.env("KNOCK_REQUIRE_ROOT", "1");
            report.tests(self.name, cmd.args(["--", "--test-threads=1"]).args(filter))
        } else {
            report.tests(self.name, cmd.args(filter))
        }
    }
}

/// Builds and runs the tests of the host.
fn tests(sh: &Shell, chosen: Chosen<'_>, report: &mut Report) -> Result<()> {
    let mut groups = Vec::new();
    for group in GROUPS.iter().filter(|group| chosen.root || !group.root) {
        if report.build(group.name, group.cargo_test(sh).arg("--no-run"), |_| {})? {
            groups.push(group);
        }
    }
    for round in 1..=chosen.repeat {
        if chosen.repeat > 1 {
            println!("\nround {round} of {}", chosen.repeat);
        }
        let mut with_tests = Vec::new();
        for group in groups {
            if group.run(sh, chosen.filter, report)? {
                with_tests.push(group);
            }
        }
        groups = with_tests;
    }
    Ok(())
}

/// The cargo command that runs the tests of a suite whose name contains `filter`.
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
        _ => format!("cargo test --test {target} {filter}"),
    })
}

fn lint(sh: &Shell, kit: &Kit, report: &mut Report) -> Result<()> {
    const STRICT: [&str; 3] = ["--", "--deny", "warnings"];
    report.step("format", shell::cargo(sh).args(["fmt", "--all", "--check"]))?;
    report.step(
        "clippy",
        shell::cargo(sh)
            .args(["clippy", "--all-targets"])
            .args(STRICT),
    )?;
    // What runs on other kernels only is not among all targets.
    for (name, package, targets) in [
        ("clippy knock-tests", "knock-tests", &["--all-targets"][..]),
        (
            "clippy knock-tests, clock",
            "knock-tests",
            &["--test", "clock"],
        ),
        ("clippy knock-bench", "knock-bench", &["--all-targets"]),
    ] {
        let clippy = shell::cargo(sh).args(["clippy", "--package", package]);
        report.step(name, clippy.args(targets).args(STRICT))?;
    }
    for (name, package) in [
        ("clippy knock-ebpf", &ebpf::FIREWALL),
        ("clippy knock-bench-ebpf", &ebpf::BASELINES),
    ] {
        match kit.toolchain.clippy(sh) {
            Some(clippy) => {
                let clippy = ebpf::for_target(clippy, kit, package, &ebpf::target_dir());
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
    fn why_no_other_kernel_is_booted() {
        let table = [
            (true, true, None, None),
            (true, false, None, Some("--no-vm")),
            (false, true, None, Some("--no-root")),
            (true, true, Some("scan"), Some("only tests named `scan`")),
        ];
        for (root, vm, filter, expected) in table {
            let chosen = Chosen {
                root,
                vm,
                filter,
                repeat: 1,
            };
            assert_eq!(chosen.without_vm().as_deref(), expected, "{chosen:?}");
        }
    }

    #[test]
    fn the_command_that_runs_a_suite_directly() {
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
