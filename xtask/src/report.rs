//! What happened in a run, row by row, and the line that sums it up.

use std::time::Instant;

use anyhow::Result;
use xshell::Cmd;

use crate::{
    shell,
    suite::{Suite, Suites},
};

/// The rows of a run.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// A line of the summary.
#[derive(Debug, PartialEq)]
pub enum Row {
    /// A command that is no test suite; one that failed counts as one failure.
    Step {
        /// What it is called.
        name: String,
        /// Whether it succeeded.
        passed: bool,
        /// How long it ran.
        seconds: f64,
    },
    /// What did not run.
    LeftOut {
        /// What it is called.
        name: String,
        /// The reason.
        why: String,
    },
    /// What libtest reported.
    Suite(Suite),
}

impl Report {
    /// Runs a command.
    pub fn step(&mut self, name: &str, cmd: Cmd<'_>) -> Result<()> {
        let start = Instant::now();
        let passed = shell::watch(cmd, |_| {})?;
        let seconds = start.elapsed().as_secs_f64();
        self.rows.push(Row::Step {
            name: name.to_owned(),
            passed,
            seconds,
        });
        Ok(())
    }

    /// Says that something did not run.
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
        let passed = shell::watch(cmd, on_line)?;
        if !passed {
            self.fail(name, start.elapsed().as_secs_f64());
        }
        Ok(passed)
    }

    /// Says that something failed.
    pub fn fail(&mut self, name: &str, seconds: f64) {
        self.rows.push(Row::Step {
            name: name.to_owned(),
            passed: false,
            seconds,
        });
    }

    /// Adds rows that were made elsewhere.
    pub fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.rows.extend(rows);
    }

    /// Runs a `cargo test`.
    pub fn tests(&mut self, name: &str, cmd: Cmd<'_>) -> Result<()> {
        let start = Instant::now();
        let mut suites = Suites::default();
        let passed = shell::watch(cmd, |line| suites.line(line))?;
        suites.end();
        let seconds = start.elapsed().as_secs_f64();
        let mut explained = suites.list.iter().any(|suite| suite.failed > 0);
        let ran = |suite: &Suite| suite.passed + suite.failed + suite.ignored > 0;
        self.rows
            .extend(suites.list.into_iter().filter(ran).map(Row::Suite));
        if !passed {
            // A suite with a harness of its own may be silent and well, but then nothing failed.
            explained |= !suites.silent.is_empty();
            for name in suites.silent {
                self.rows.push(Row::Step {
                    name,
                    passed,
                    seconds,
                });
            }
        }
        if !passed && !explained {
            // It did not compile.
            self.rows.push(Row::Step {
                name: name.to_owned(),
                passed,
                seconds,
            });
        }
        Ok(())
    }

    /// A step that failed counts as one failure: "0 failed" shall mean that all is well.
    fn totals(&self) -> (u32, u32, u32) {
        self.rows
            .iter()
            .fold((0, 0, 0), |(passed, failed, skipped), row| match row {
                Row::Step { passed: true, .. } | Row::LeftOut { .. } => (passed, failed, skipped),
                Row::Step { passed: false, .. } => (passed, failed + 1, skipped),
                Row::Suite(suite) => (
                    passed + suite.passed,
                    failed + suite.failed,
                    skipped + suite.ignored,
                ),
            })
    }

    /// Whether any test ran.
    pub fn has_tests(&self) -> bool {
        let (passed, failed, skipped) = self.totals();
        passed + failed + skipped > 0
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.totals().1 == 0
    }

    fn last_line(&self) -> String {
        let (passed, failed, skipped) = self.totals();
        let mut line = format!("{passed} passed, {failed} failed");
        if skipped > 0 {
            line += &format!(", {skipped} skipped");
        }
        line
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
                Row::Step { .. } | Row::Suite(_) | Row::LeftOut { .. } => None,
            })
            .collect();
        if !bad.is_empty() {
            println!("failed: {}", bad.join(", "));
        }
        println!("{}", self.last_line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line() {
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
        let left_out = || Row::LeftOut {
            name: "clippy".into(),
            why: "none".into(),
        };
        let table = [
            ("nothing ran", vec![], "0 passed, 0 failed"),
            (
                "all well",
                vec![step(true), suite(3, 0, 0), suite(4, 0, 0)],
                "7 passed, 0 failed",
            ),
            (
                "a test failed",
                vec![step(true), suite(3, 1, 0)],
                "3 passed, 1 failed",
            ),
            (
                "a step failed",
                vec![step(false), suite(3, 0, 0)],
                "3 passed, 1 failed",
            ),
            (
                "ignored",
                vec![left_out(), suite(3, 0, 2)],
                "3 passed, 0 failed, 2 skipped",
            ),
        ];
        for (name, rows, expected) in table {
            let report = Report { rows };
            assert_eq!(report.last_line(), expected, "{name}");
            assert_eq!(report.is_good(), expected.contains(" 0 failed"), "{name}");
            assert_eq!(report.has_tests(), name != "nothing ran", "{name}");
        }
    }
}
