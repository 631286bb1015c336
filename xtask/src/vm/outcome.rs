//! Parses the output of a virtual machine.

use std::time::Duration;

use crate::{
    report::Row,
    suite::{Suite, Suites},
};

/// The last line of `vm/init.sh`.
const END: &str = "machine: all suites ran";

/// A suite that must have run.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedSuite {
    pub(super) name: &'static str,
    /// The number of its tests; 0 stands for any number above 0.
    pub(super) tests: usize,
}

/// The output of a machine, from its start to its end.
#[derive(Debug, Default)]
pub(super) struct ConsoleLog {
    suites: Suites,
    ended: bool,
    panic: Option<String>,
    pub(super) took: Duration,
    pub(super) timed_out: bool,
    pub(super) exited_well: bool,
}

impl ConsoleLog {
    /// Takes the next line.
    pub(super) fn line(&mut self, line: &str) {
        self.suites.line(line);
        self.ended |= line == END;
        if let Some((_, why)) = line.split_once("Kernel panic - not syncing: ") {
            self.panic.get_or_insert_with(|| why.to_owned());
        }
    }

    /// Returns the rows for the summary: each suite that ran, each that did not as a failure, and the machine.
    pub(super) fn rows(
        mut self,
        release: &str,
        expected: impl IntoIterator<Item = ExpectedSuite>,
    ) -> Vec<Row> {
        self.suites.end();
        let mut rows = Vec::new();
        for ExpectedSuite { name, tests } in expected {
            let name = format!("{name} on {release}");
            let found = self.suites.list.iter().find(|suite| suite.name == name);
            let failed = |why: String| Row::Step {
                name: format!("{name}: {why}"),
                passed: false,
                seconds: 0.0,
            };
            rows.extend(found.cloned().map(Row::Suite));
            match found.map(ran) {
                None if self.suites.silent.contains(&name) => rows.push(failed("no end".into())),
                None => rows.push(failed("not begun".into())),
                Some(0) => rows.push(failed("no test ran".into())),
                Some(ran) if tests > 0 && ran != tests => {
                    rows.push(failed(format!("{ran} of {tests} tests ran")));
                }
                Some(_) => {}
            }
        }
        let why = self.failure();
        rows.push(Row::Step {
            name: match &why {
                Some(why) => format!("kernel {release}: {why}"),
                None => format!("kernel {release}"),
            },
            passed: why.is_none(),
            seconds: self.took.as_secs_f64(),
        });
        rows
    }

    /// Returns the reason why the machine did not run all suites.
    fn failure(&self) -> Option<String> {
        if let Some(panic) = &self.panic {
            return Some(format!("panic: {panic}"));
        }
        if self.timed_out {
            return Some(format!("no end after {} s", self.took.as_secs()));
        }
        if !self.exited_well {
            return Some("QEMU failed".to_owned());
        }
        (!self.ended).then(|| "ended too early".to_owned())
    }
}

fn ran(suite: &Suite) -> usize {
    // Far fewer than 2^32.
    (suite.passed + suite.failed) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: &str = "     Running load on 6.1.0-56\nrunning 2 tests";
    const PASSED: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.25s";

    /// Returns the results in the rows of two tests: how many passed, and the names of failures.
    fn rows(lines: &[&str], change: impl Fn(&mut ConsoleLog)) -> (u32, Vec<String>) {
        let mut log = ConsoleLog {
            exited_well: true,
            took: Duration::from_secs(7),
            ..ConsoleLog::default()
        };
        let lines = lines.iter().flat_map(|lines| lines.lines());
        lines.for_each(|line| log.line(line));
        change(&mut log);
        let expected = [ExpectedSuite {
            name: "load",
            tests: 2,
        }];
        let (mut passed, mut failed) = (0, Vec::new());
        for row in log.rows("6.1.0-56", expected) {
            match row {
                Row::Suite(suite) => {
                    passed += suite.passed;
                    failed.extend((suite.failed > 0).then_some(suite.name));
                }
                Row::Step { name, passed, .. } => failed.extend((!passed).then_some(name)),
                Row::LeftOut { name, .. } | Row::Skipped { name, .. } => panic!("{name}"),
            }
        }
        (passed, failed)
    }

    #[test]
    fn every_missing_result_is_a_failure() {
        let one = PASSED.replace("2 passed", "1 passed");
        let none = PASSED.replace("2 passed", "0 passed");
        let bad = PASSED.replace("ok. 2 passed; 0", "FAILED. 1 passed; 1");
        let panic = "[    1.0] Kernel panic - not syncing: Attempted to kill init!";
        let table: [(&str, &[&str], u32, &[&str]); 8] = [
            ("all well", &[BEGUN, PASSED, END], 2, &[]),
            (
                "a test failed",
                &[BEGUN, &bad, END],
                1,
                &["load on 6.1.0-56"],
            ),
            (
                "a test is gone",
                &[BEGUN, &one, END],
                1,
                &["load on 6.1.0-56: 1 of 2 tests ran"],
            ),
            (
                "all tests are gone",
                &[BEGUN, &none, END],
                0,
                &["load on 6.1.0-56: no test ran"],
            ),
            (
                "a program died",
                &[BEGUN, END],
                0,
                &["load on 6.1.0-56: no end"],
            ),
            (
                "another kernel",
                &[&BEGUN.replace("6.1.0-56", "6.1.0-55"), PASSED, END],
                0,
                &["load on 6.1.0-56: not begun"],
            ),
            (
                "no end",
                &[BEGUN, PASSED],
                2,
                &["kernel 6.1.0-56: ended too early"],
            ),
            (
                "a panic",
                &[BEGUN, PASSED, panic],
                2,
                &["kernel 6.1.0-56: panic: Attempted to kill init!"],
            ),
        ];
        for (name, lines, passed, failed) in table {
            let (now_passed, now_failed) = rows(lines, |_| {});
            assert_eq!(now_passed, passed, "{name}");
            assert_eq!(now_failed, failed, "{name}");
        }
    }

    #[test]
    fn each_end_of_a_machine_has_its_outcome() {
        let (_, failed) = rows(&[BEGUN, PASSED], |log| log.timed_out = true);
        assert_eq!(failed, ["kernel 6.1.0-56: no end after 7 s"]);
        let (_, failed) = rows(&[BEGUN, PASSED], |log| log.exited_well = false);
        assert_eq!(failed, ["kernel 6.1.0-56: QEMU failed"]);
    }
}
