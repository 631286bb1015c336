//! `cargo xtask audit`: checks spelling and dependencies. Its programs take minutes to build, so `cargo xtask test`
//! does not run them.

use std::time::Instant;

use anyhow::Result;
use xshell::Shell;

use crate::{
    crates,
    report::{Row, RunReport},
    shell,
};

/// Checks spelling (`typos.toml`), and licences, duplicates and sources of dependencies (`deny.toml`); with a network,
/// also whether any of them has a known vulnerability. Returns whether no check failed.
///
/// # Errors
/// A program is missing and can't be installed.
pub fn run(sh: &Shell) -> Result<bool> {
    crates::get(sh, crates::TYPOS)?;
    crates::get(sh, crates::CARGO_DENY)?;
    let mut report = RunReport::default();
    report.step("spelling", sh.cmd("typos").args(["--format", "brief"]))?;
    let deny = || shell::cargo(sh).args(["deny", "check"]);
    report.step("dependencies", deny().args(["licenses", "bans", "sources"]))?;
    let start = Instant::now();
    let outcome = shell::watch("advisories", deny().arg("advisories"), |_| {})?;
    match outcome.unreachable {
        Some(_) => report.left_out(
            "advisories",
            "the database on github.com could not be reached",
        ),
        None => report.add([Row::Step {
            name: "advisories".to_owned(),
            passed: outcome.passed,
            seconds: start.elapsed().as_secs_f64(),
        }]),
    }
    report.print();
    Ok(report.is_good())
}
