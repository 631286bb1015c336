//! `cargo xtask fuzz`: runs the targets in `fuzz/` with libFuzzer.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use knock_sequence::duration;
use xshell::Shell;

use crate::{crates, package::Apt, shell, tools};

/// The longest input, in bytes.
const LONGEST: u32 = 8 << 10;

/// Runs a target, or all of them one after the other, each for `length`. Returns whether no input failed.
///
/// # Errors
/// There is no such target, or a program is missing and can't be installed.
pub fn run(sh: &Shell, apt: &Apt<'_>, target: Option<&str>, length: Duration) -> Result<bool> {
    let all = targets()?;
    let chosen = match target {
        None => all,
        Some(target) => {
            ensure!(
                all.iter().any(|name| name == target),
                "{target:?} is not a fuzz target: they are {}",
                all.join(", ")
            );
            vec![target.to_owned()]
        }
    };
    tools::get(apt, tools::Verb::Fuzz)?;
    crates::get(sh, crates::CARGO_FUZZ)?;
    let mut failed = Vec::new();
    for target in chosen {
        if !run_one(sh, &target, length)? {
            failed.push(target);
        }
    }
    for target in &failed {
        println!(
            "{target}: failed; the input is in target/fuzz/{target}/failed: copy it to fuzz/corpus/{target} and \
             run `cargo test --package knock-fuzz`"
        );
    }
    Ok(failed.is_empty())
}

/// Returns the names of the targets, sorted.
fn targets() -> Result<Vec<String>> {
    let directory = shell::workspace().join("fuzz/fuzz_targets");
    let reading = || format!("reading {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

/// Runs a target. New inputs are collected below `target`, not in the tree.
fn run_one(sh: &Shell, target: &str, length: Duration) -> Result<bool> {
    let own = shell::target_dir().join("fuzz").join(target);
    let (found, failed) = (own.join("corpus"), own.join("failed"));
    for directory in [&found, &failed] {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let fuzz = shell::workspace().join("fuzz");
    let dictionary = fuzz.join("dict").join(target).with_extension("dict");
    let mut cmd = shell::cargo(sh)
        // Optimization across crates takes minutes and finds no more faults.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        // The stable compiler has no sanitizers, and the targets have no unsafe code.
        .args([
            "fuzz",
            "run",
            "--sanitizer",
            "none",
            "--features",
            "libfuzzer",
        ])
        .arg("--target-dir")
        .arg(shell::target_dir().join("fuzz"))
        .arg(target)
        .arg(&found)
        .arg(fuzz.join("corpus").join(target))
        .arg("--")
        .arg(format!("-max_total_time={}", length.as_secs().max(1)))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/", failed.display()))
        .arg("-print_final_stats=1");
    if dictionary.is_file() {
        cmd = cmd.arg(format!("-dict={}", dictionary.display()));
    }
    Ok(shell::watch(&format!("fuzzing {target}"), cmd, |_| {})?.passed)
}

/// Reads a length of time: `30s`, `1h30m`.
///
/// # Errors
/// It is not a duration, or shorter than a second.
pub fn length(text: &str) -> Result<Duration> {
    let length = duration::parse(text)?;
    ensure!(
        length.as_secs() > 0,
        "less than a second: write a length such as 30s, 10m or 1h30m"
    );
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_duration_of_seconds() {
        for (text, seconds) in [
            ("30s", Some(30)),
            ("1h30m", Some(5400)),
            ("0s", None),
            ("10ms", None),
            ("30", None),
            ("", None),
        ] {
            let length = length(text).ok().map(|length| length.as_secs());
            assert_eq!(length, seconds, "{text:?}");
        }
    }

    #[test]
    fn the_targets_are_those_of_the_programs() {
        let targets = targets().unwrap();
        assert!(targets.contains(&"judge".to_owned()), "{targets:?}");
        let manifest = fs::read_to_string(shell::workspace().join("fuzz/Cargo.toml")).unwrap();
        for target in targets {
            assert!(
                manifest.contains(&format!("name = \"{target}\"\n")),
                "{target}"
            );
        }
    }
}
