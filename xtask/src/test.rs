//! `cargo xtask test`: format check, lints, all tests, and one line that sums them up.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use anyhow::{Result, bail};
use xshell::{Cmd, Shell};

use crate::{
    ebpf,
    report::Report,
    setup::{self, Kit, Purpose},
    shell, vm,
};

/// What is to run.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// The tests that need root.
    pub root: bool,
    /// Those on other kernels, too.
    pub vm: bool,
    /// Only tests whose name contains this.
    pub filter: Option<&'a str>,
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
pub fn run(sh: &Shell, chosen: Chosen<'_>) -> Result<bool> {
    let Chosen { root, filter, .. } = chosen;
    if root && !shell::is_root() {
        bail!(
            "the tests on real packets need root: run \
             `sudo --preserve-env env \"PATH=$PATH\" cargo xtask test`, \
             or leave them out with `cargo xtask test --no-root`"
        );
    }
    let kit = setup::run(
        sh,
        if root {
            Purpose::RootTests
        } else {
            Purpose::Check
        },
    )?;
    let without_vm = chosen.without_vm();
    // Now, so that what can't be had is told before all the rest has run.
    let kernels = match without_vm {
        None => vm::setup(sh, &vm::SERIES)
            .inspect_err(|why| println!("kernels: {why:#}; `--no-vm` leaves them out")),
        Some(_) => Ok(Vec::new()),
    };
    let mut report = Report::default();
    lint(sh, &kit, &mut report)?;

    let cargo_test = || cargo(sh).args(["test", "--no-fail-fast"]);
    report.tests("cargo test", cargo_test().args(filter))?;
    let bench = cargo_test().args(["--package", "knock-bench"]);
    report.tests("cargo test knock-bench", bench.args(filter))?;
    if root {
        // Says to the tests that a missing right is a failure and not a reason to skip.
        let cmd = cargo_test()
            .env("KNOCK_REQUIRE_ROOT", "1")
            .args(["--package", "knock-tests"]);
        // One at a time: they share the machine's network namespaces and bpffs.
        report.tests(
            "root tests",
            cmd.args(["--", "--test-threads=1"]).args(filter),
        )?;
    }
    let name = format!("kernels {}", vm::SERIES.join(", "));
    match (without_vm, kernels) {
        (Some(why), _) => report.left_out(&name, &why),
        (None, Ok(kernels)) => vm::test(sh, &kernels, &mut report)?,
        (None, Err(why)) => {
            println!("\n{name}: {why:#}");
            report.fail(&name, 0.0);
        }
    }
    if let Some(filter) = filter
        && !report.has_tests()
    {
        report.fail(&format!("no test has `{filter}` in its name"), 0.0);
    }
    report.print();
    Ok(report.is_good())
}

fn lint(sh: &Shell, kit: &Kit, report: &mut Report) -> Result<()> {
    const STRICT: [&str; 3] = ["--", "--deny", "warnings"];
    report.step("format", cargo(sh).args(["fmt", "--all", "--check"]))?;
    report.step(
        "clippy",
        cargo(sh).args(["clippy", "--all-targets"]).args(STRICT),
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
        let clippy = cargo(sh).args(["clippy", "--package", package]);
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

fn cargo(sh: &Shell) -> Cmd<'_> {
    let cmd = shell::cargo(sh);
    if env::var_os("CARGO_TERM_COLOR").is_none() && io::stdout().is_terminal() {
        // It writes into our pipe and can't see the terminal behind it.
        cmd.env("CARGO_TERM_COLOR", "always")
    } else {
        cmd
    }
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
            let chosen = Chosen { root, vm, filter };
            assert_eq!(chosen.without_vm().as_deref(), expected, "{chosen:?}");
        }
    }
}
