//! `cargo xtask audit`: spelling, and what the dependencies are. Its programs are too large to be built for each
//! test run.

use anyhow::Result;
use xshell::Shell;

use crate::{crates, report::Report, shell};

/// Checks spelling (`typos.toml`), licences, duplicates and sources of dependencies (`deny.toml`), and, if the
/// network is there, whether any of them has a known vulnerability. Returns whether all is well.
///
/// # Errors
/// A program is missing and can't be installed.
pub fn run(sh: &Shell) -> Result<bool> {
    crates::get(sh, crates::TYPOS)?;
    crates::get(sh, crates::CARGO_DENY)?;
    let mut report = Report::default();
    report.step("spelling", sh.cmd("typos").args(["--format", "brief"]))?;
    let deny = || shell::cargo(sh).args(["deny", "check"]);
    report.step("dependencies", deny().args(["licenses", "bans", "sources"]))?;
    let advisories = deny().arg("advisories");
    let outcome = shell::watch("advisories", advisories, |_| {})?;
    match outcome.unreachable {
        Some(why) => report.left_out("advisories", &format!("needs the network: {why}")),
        None if outcome.passed => {}
        None => report.fail("advisories", 0.0),
    }
    report.print();
    Ok(report.is_good())
}
