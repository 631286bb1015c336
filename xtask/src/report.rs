//! Reports a test run row by row, with a summary line.

use std::time::Instant;

use anyhow::Result;
use xshell::Cmd;

use crate::{
    shell::{self, RunOutcome},
    suite::{Suite, Suites},
};

/// The rows of a run.
#[derive(Debug, Default)]
pub struct RunReport {
    rows: Vec<Row>,
}

/// A line of the summary.
#[derive(Debug, PartialEq)]
pub enum Row {
    /// A command that is not a test suite; one that failed counts as one failure.
    Step {
        /// Its name.
        name: String,
        /// Whether it succeeded.
        passed: bool,
        /// Its duration.
        seconds: f64,
    },
    /// A step that did not run.
    LeftOut {
        /// Its name.
        name: String,
        /// The reason.
        why: String,
    },
    /// Tests that could not run for a reason outside the code, and count as skipped.
    Skipped {
        /// Its name.
        name: String,
        /// How many tests or suites did not run.
        count: u32,
        /// The reason.
        why: String,
    },
    /// A suite, as libtest reported it.
    Suite(Suite),
}

impl RunReport {
    /// Runs a command.
    pub fn step(&mut self, name: &str, cmd: Cmd<'_>) -> Result<()> {
        let start = Instant::now();
        let outcome = shell::watch(name, cmd, |_| {})?;
        self.rows.push(Row::Step {
            name: named(name, &outcome),
            passed: outcome.passed,
            seconds: start.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    /// Adds tests that could not run.
    pub fn skipped(&mut self, name: &str, count: u32, why: &str) {
        self.rows.push(Row::Skipped {
            name: name.to_owned(),
            count,
            why: why.to_owned(),
        });
    }

    /// Adds a step that did not run.
    pub fn left_out(&mut self, name: &str, why: &str) {
        self.rows.push(Row::LeftOut {
            name: name.to_owned(),
            why: why.to_owned(),
        });
    }

    /// Runs a command that others build on: only its failure is worth a row. Returns whether it
    /// succeeded.
    pub fn build(&mut self, name: &str, cmd: Cmd<'_>, on_line: impl FnMut(&str)) -> Result<bool> {
        let start = Instant::now();
        let outcome = shell::watch(name, cmd, on_line)?;
        if !outcome.passed {
            self.fail(&named(name, &outcome), start.elapsed().as_secs_f64());
        }
        Ok(outcome.passed)
    }

    /// Adds a failure.
    pub fn fail(&mut self, name: &str, seconds: f64) {
        self.rows.push(Row::Step {
            name: name.to_owned(),
            passed: false,
            seconds,
        });
    }

    /// Adds rows.
    pub fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.rows.extend(rows);
    }

    /// Runs a `cargo test`; returns whether any test ran.
    ///
    /// # Errors
    /// It can't be started.
    pub fn tests(&mut self, name: &str, cmd: Cmd<'_>) -> Result<bool> {
        let start = Instant::now();
        let mut suites = Suites::default();
        let passed = shell::watch(name, cmd, |line| suites.line(line))?.passed;
        suites.end();
        Ok(self.take(name, suites, passed, start.elapsed().as_secs_f64()))
    }

    /// Adds what test programs reported, and whether all of them succeeded; returns whether any test
    /// ran.
    pub fn take(&mut self, name: &str, suites: Suites, passed: bool, seconds: f64) -> bool {
        let ran = |suite: &Suite| suite.passed + suite.failed + suite.ignored > 0;
        let any = suites.list.iter().any(ran);
        let mut explained = suites.list.iter().any(|suite| suite.failed > 0);
        for suite in suites.list.into_iter().filter(ran) {
            self.suite(suite);
        }
        if !passed {
            // Only now: a suite with a harness of its own may print nothing and succeed.
            explained |= !suites.silent.is_empty();
            for name in suites.silent {
                self.fail(&name, seconds);
            }
        }
        if !passed && !explained {
            self.fail(name, seconds);
        }
        any
    }

    /// Adds a suite, to its row if it ran before.
    fn suite(&mut self, suite: Suite) {
        let before = self.rows.iter_mut().find_map(|row| match row {
            Row::Suite(before) if before.name == suite.name => Some(before),
            Row::Suite(_) | Row::Step { .. } | Row::LeftOut { .. } | Row::Skipped { .. } => None,
        });
        match before {
            Some(before) => before.add(&suite),
            None => self.rows.push(Row::Suite(suite)),
        }
    }

    /// Returns the names of the suites of which tests ran.
    pub fn suites(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(|row| match row {
            Row::Suite(suite) => Some(suite.name.as_str()),
            Row::Step { .. } | Row::LeftOut { .. } | Row::Skipped { .. } => None,
        })
    }

    /// Returns the totals. A step that failed counts as one failure: "0 failed" means that everything succeeded.
    fn totals(&self) -> (u32, u32, u32) {
        self.rows
            .iter()
            .fold((0, 0, 0), |(passed, failed, skipped), row| match row {
                Row::Step { passed: true, .. } | Row::LeftOut { .. } => (passed, failed, skipped),
                Row::Step { passed: false, .. } => (passed, failed + 1, skipped),
                Row::Skipped { count, .. } => (passed, failed, skipped + count),
                Row::Suite(suite) => (
                    passed + suite.passed,
                    failed + suite.failed,
                    skipped + suite.ignored,
                ),
            })
    }

    /// Returns whether any test ran.
    pub fn has_tests(&self) -> bool {
        let (passed, failed, skipped) = self.totals();
        passed + failed + skipped > 0
    }

    /// Returns whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.totals().1 == 0
    }

    /// Returns the line that sums the rows up, and names what was left out.
    pub fn last_line(&self) -> String {
        let (passed, failed, skipped) = self.totals();
        let counts = format!("{passed} passed, {failed} failed, {skipped} skipped");
        let left_out: Vec<_> = self
            .rows
            .iter()
            .filter_map(|row| match row {
                Row::LeftOut { name, .. } => Some(name.as_str()),
                Row::Step { .. } | Row::Skipped { .. } | Row::Suite(_) => None,
            })
            .collect();
        if left_out.is_empty() {
            return counts;
        }
        format!("{counts}; left out: {}", left_out.join("; "))
    }

    /// Prints all rows and one line that sums them up.
    pub fn print(&self) {
        println!(
            "\n{:<44} {:>7} {:>7} {:>8}",
            "suite", "passed", "failed", "seconds"
        );
        for row in &self.rows {
            match row {
                Row::Step {
                    name,
                    passed,
                    seconds,
                } => {
                    let (ok, bad) = if *passed { ("ok", "") } else { ("", "FAILED") };
                    println!("{name:<44} {ok:>7} {bad:>7} {seconds:>8.2}");
                }
                Row::LeftOut { name, why } => println!("{name:<44} left out: {why}"),
                Row::Skipped { name, why, .. } => println!("{name:<44} skipped: {why}"),
                Row::Suite(Suite {
                    name,
                    passed,
                    failed,
                    seconds,
                    ..
                }) => {
                    println!("{name:<44} {passed:>7} {failed:>7} {seconds:>8.2}");
                }
            }
        }
        let bad: Vec<_> = self
            .rows
            .iter()
            .filter_map(|row| match row {
                Row::Step {
                    name,
                    passed: false,
                    ..
                } => Some(name.as_str()),
                Row::Suite(suite) if suite.failed > 0 => Some(suite.name.as_str()),
                Row::Step { .. } | Row::Suite(_) | Row::LeftOut { .. } | Row::Skipped { .. } => {
                    None
                }
            })
            .collect();
        if !bad.is_empty() {
            println!("failed: {}", bad.join(", "));
        }
        println!("{}", self.last_line());
    }
}

/// Returns the name of a step, with the reason if that was the network.
fn named(name: &str, outcome: &RunOutcome) -> String {
    match &outcome.unreachable {
        Some(why) => format!("{name}: {why}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_sums_up_the_run() {
        let step = |passed| Row::Step {
            name: "format".into(),
            passed,
            seconds: 0.1,
        };
        let suite = |passed, failed, ignored| {
            Row::Suite(Suite {
                passed,
                failed,
                ignored,
                ..Suite::default()
            })
        };
        let skipped = |count| Row::Skipped {
            name: "kernels".into(),
            count,
            why: "no QEMU".into(),
        };
        let left_out = || Row::LeftOut {
            name: "clippy".into(),
            why: "none".into(),
        };
        let table = [
            ("nothing ran", vec![], "0 passed, 0 failed, 0 skipped"),
            (
                "all well",
                vec![step(true), suite(3, 0, 0), suite(4, 0, 0)],
                "7 passed, 0 failed, 0 skipped",
            ),
            (
                "a test failed",
                vec![step(true), suite(3, 1, 0)],
                "3 passed, 1 failed, 0 skipped",
            ),
            (
                "a step failed",
                vec![step(false), suite(3, 0, 0)],
                "3 passed, 1 failed, 0 skipped",
            ),
            (
                "could not run",
                vec![suite(3, 0, 0), skipped(18)],
                "3 passed, 0 failed, 18 skipped",
            ),
            (
                "ignored",
                vec![left_out(), suite(3, 0, 2)],
                "3 passed, 0 failed, 2 skipped; left out: clippy",
            ),
            (
                "left out",
                vec![left_out(), suite(3, 0, 0), left_out()],
                "3 passed, 0 failed, 0 skipped; left out: clippy; clippy",
            ),
        ];
        for (name, rows, expected) in table {
            let report = RunReport { rows };
            assert_eq!(report.last_line(), expected, "{name}");
            assert_eq!(report.is_good(), expected.contains(" 0 failed"), "{name}");
            assert_eq!(report.has_tests(), name != "nothing ran", "{name}");
        }
    }
}
