//! Root tests that run only where a verb has prepared what they need.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    lanes::{Setting, TestProgram},
    launch::CargoProfile,
    report::RunReport,
    shell, suite,
};

/// Builds a test program and the programs that it starts; `None` if they don't build, which is reported.
///
/// # Errors
/// Cargo does not run, or does not name the program.
pub(crate) fn build(
    sh: &Shell,
    target: &str,
    report: &mut RunReport,
) -> Result<Option<TestProgram>> {
    let tests = shell::cargo(sh)
        .args(["test", "--no-run", "--package", "knock-tests"])
        .args(["--test", target]);
    let mut found = None;
    let built = report.build(&format!("tests of {target}"), tests, |line| {
        found = suite::executable(line).or(found.take());
    })?;
    let started = shell::cargo(sh)
        .args(["build", "--package", "knock-tests"])
        .args(["--package", "knock-user", "--bin", "knock-user"])
        .args(["--package", "knock-client", "--bin", "knock-client"]);
    if !built || !report.build("programs of the root tests", started, |_| {})? {
        return Ok(None);
    }
    let Some((suite, path)) = found else {
        bail!("cargo did not report where the test program {target} is");
    };
    let path = shell::workspace().join(path);
    Ok(Some(TestProgram { suite, path }))
}

/// Returns the environment of such a program: its own variables, those of all root tests, and arguments of libtest.
pub(crate) fn setting(
    own: Vec<(&'static str, OsString)>,
    more: Vec<String>,
    limit: Duration,
) -> Setting {
    let programs = CargoProfile::Dev.directory();
    let mut variables = own;
    variables.extend([
        ("KNOCK_REQUIRE_ROOT", "1".into()),
        ("KNOCK_USER_BIN", programs.join("knock-user").into()),
        ("KNOCK_CLIENT_BIN", programs.join("knock-client").into()),
    ]);
    Setting {
        directory: shell::workspace().join("tests"),
        variables,
        arguments: ["--test-threads=1".to_owned()]
            .into_iter()
            .chain(more)
            .collect(),
        limit,
    }
}

/// Returns how many tests the sources in a file or directory of the workspace have.
pub(crate) fn declared(place: &str) -> u32 {
    count(&shell::workspace().join(place))
}

fn count(path: &Path) -> u32 {
    if let Ok(entries) = fs::read_dir(path) {
        return entries.flatten().map(|entry| count(&entry.path())).sum();
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let tests = text.lines().filter(|line| line.trim() == "#[test]");
    u32::try_from(tests.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_files_and_directories_are_counted() {
        assert_eq!(declared("xtask/src/prepared.rs"), 1);
        assert!(declared("tests/tests/packages") > 10);
        assert_eq!(declared("tests/tests/none"), 0);
    }
}
