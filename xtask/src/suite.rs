//! Parses the output of cargo and libtest about test suites.

use std::path::PathBuf;

use crate::progress::without_colour;

/// The results of one suite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Suite {
    /// As in `knock_common (src/lib.rs)`.
    pub name: String,
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests marked `#[ignore]`.
    pub ignored: u32,
    /// The duration of the tests.
    pub seconds: f64,
}

impl Suite {
    /// Adds the results of another run, or part, of the same suite.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.seconds += other.seconds;
    }
}

/// Collects suites from the lines of a `cargo test`.
#[derive(Debug, Default)]
pub struct Suites {
    name: String,
    reported: bool,
    /// The suites reported so far.
    pub list: Vec<Suite>,
    /// Suites that started and reported nothing more, because their process died.
    pub silent: Vec<String>,
}

impl Suites {
    /// Takes the next line of output.
    pub fn line(&mut self, line: &str) {
        let line = without_colour(line);
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            self.begin(running(rest).unwrap_or_else(|| rest.to_owned()));
        } else if let Some(library) = line.strip_prefix("Doc-tests ") {
            self.begin(format!("{library} (documentation)"));
        } else if let Some(suite) = result(line) {
            self.add(suite);
        }
    }

    /// Handles the end of the output.
    pub fn end(&mut self) {
        self.begin(String::new());
    }

    fn begin(&mut self, name: String) {
        if !self.name.is_empty() && !self.reported {
            self.silent.push(self.name.clone());
        }
        self.name = name;
        self.reported = false;
    }

    /// Doctests report twice under one name: those compiled together and those on their own.
    fn add(&mut self, suite: Suite) {
        self.reported = true;
        match self.list.last_mut() {
            Some(last) if last.name == self.name => last.add(&suite),
            Some(_) | None => self.list.push(Suite {
                name: self.name.clone(),
                ..suite
            }),
        }
    }
}

/// Parses `unittests src/lib.rs (target/debug/deps/knock_common-0f3a)` as `knock_common (src/lib.rs)`.
fn running(rest: &str) -> Option<String> {
    let (source, program) = rest.trim_end_matches(')').rsplit_once(" (")?;
    named(source, program)
}

/// Returns the name of a suite by its source, such as `unittests src/lib.rs`, and its program.
fn named(source: &str, program: &str) -> Option<String> {
    let source = source.strip_prefix("unittests ").unwrap_or(source);
    let program = program.rsplit('/').next()?;
    let (name, _hash) = program.rsplit_once('-')?;
    Some(format!("{name} ({source})"))
}

/// Returns the suite and its program in a line of `cargo test --no-run`, as in
/// `Executable tests/a.rs (target/debug/deps/a-0f3a)`.
pub fn executable(line: &str) -> Option<(String, PathBuf)> {
    let line = without_colour(line);
    let rest = line.trim().strip_prefix("Executable ")?;
    let (source, path) = rest.strip_suffix(')')?.split_once(" (")?;
    Some((named(source, path)?, path.into()))
}

/// Parses `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s`.
fn result(line: &str) -> Option<Suite> {
    let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut suite = Suite::default();
    for part in counts.split("; ") {
        if let Some(seconds) = part.strip_prefix("finished in ") {
            suite.seconds = seconds.trim_end_matches('s').parse().ok()?;
            continue;
        }
        let (number, what) = part.split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "passed" => suite.passed = number,
            "failed" => suite.failed = number,
            "ignored" => suite.ignored = number,
            _ => {}
        }
    }
    Some(suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_run_is_read() {
        let output = "   Compiling knock-common v0.1.0 (/src/knock-common)
    Finished `test` profile [unoptimized + debuginfo] target(s) in 0.61s
\x1b[1m\x1b[92m     Running\x1b[0m unittests src/lib.rs (target/debug/deps/knock_common-0f3a)

running 3 tests
test a ... ok
test b ... FAILED
test c ... ignored

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.25s

     Running tests/cli.rs (/tmp/x/debug/deps/cli-1b2c)

test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.50s

   Doc-tests knock_common

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.50s

all doctests ran in 0.68s; merged doctests compilation took 0.24s";
        let mut suites = Suites::default();
        output.lines().for_each(|line| suites.line(line));
        let suite = |name: &str, passed, failed, ignored, seconds| Suite {
            name: name.into(),
            passed,
            failed,
            ignored,
            seconds,
        };
        assert_eq!(
            suites.list,
            [
                suite("knock_common (src/lib.rs)", 1, 1, 1, 0.25),
                suite("cli (tests/cli.rs)", 12, 0, 0, 1.5),
                suite("knock_common (documentation)", 3, 0, 1, 0.5),
            ]
        );
    }

    #[test]
    fn the_programs_that_were_built_are_read() {
        let line = "\x1b[1m\x1b[92m  Executable\x1b[0m tests/a b/main.rs (/tmp/x (1)/deps/a-0f3a)";
        let expected = (
            "a (tests/a b/main.rs)".to_owned(),
            "/tmp/x (1)/deps/a-0f3a".into(),
        );
        assert_eq!(executable(line), Some(expected));
        assert_eq!(executable("    Finished `vm` profile (1)"), None);
    }

    #[test]
    fn a_suite_that_died_is_noticed() {
        let output = "     Running tests/a.rs (target/debug/deps/a-1)
running 1 test
error: test failed, to rerun pass `--test a`
     Running tests/b.rs (target/debug/deps/b-2)
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
     Running tests/c.rs (target/debug/deps/c-3)";
        let mut suites = Suites::default();
        output.lines().for_each(|line| suites.line(line));
        suites.end();
        assert_eq!(suites.silent, ["a (tests/a.rs)", "c (tests/c.rs)"]);
        assert_eq!(suites.list.len(), 1);
    }

    #[test]
    fn lines_that_only_look_like_results_are_ignored() {
        for line in [
            "test result: unknown",
            "test results: ok. 3 passed",
            "test result: ok. x y",
        ] {
            assert_eq!(result(line), None, "{line}");
        }
    }
}
