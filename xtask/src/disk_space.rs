//! Warns before a long run that the disk has too little room for it.

use std::path::{Path, PathBuf};

use xshell::Shell;

use crate::shell;

/// The kibibytes that `cargo xtask test` writes, as README says.
pub(crate) const TEST: u64 = 10 << 20;

/// The kibibytes that `cargo xtask demo` writes, as README says.
pub(crate) const DEMO: u64 = 1_700 << 10;

/// Prints a warning where fewer kibibytes are free than are still `needed` in the directory of builds.
///
/// What is in that directory already counts as written. Prints nothing where `df` or `du` fails.
pub(crate) fn warn(sh: &Shell, needed: u64) {
    let directory = shell::target_dir();
    let free = sh.cmd("df").args(["--output=avail", "--block-size=1K"]);
    let free = number(
        free.arg(existing(&directory))
            .quiet()
            .ignore_stderr()
            .read(),
    );
    let written = sh.cmd("du").args(["--summarize", "--block-size=1K"]);
    let written = number(written.arg(&directory).quiet().ignore_stderr().read());
    if let Some(free) = free
        && let Some(text) = too_little(needed, written.unwrap_or(0), free)
    {
        println!("disk: {text} {}", directory.display());
    }
}

/// Returns the text of the warning, up to the name of the directory.
fn too_little(needed: u64, written: u64, free: u64) -> Option<String> {
    let left = needed.saturating_sub(written);
    let gigabytes = |kibibytes: u64| kibibytes as f64 / f64::from(1 << 20);
    (free < left).then(|| {
        format!(
            "{:.1} GB are free, and this takes about {:.1} GB more: make room, or set CARGO_TARGET_DIR to another \
             disk than that of",
            gigabytes(free),
            gigabytes(left)
        )
    })
}

/// Returns the first number of an answer.
fn number(answer: xshell::Result<String>) -> Option<u64> {
    let answer = answer.ok()?;
    answer.split_whitespace().find_map(|word| word.parse().ok())
}

/// Returns the nearest directory above that exists.
fn existing(directory: &Path) -> PathBuf {
    let found = directory.ancestors().find(|place| place.exists());
    found.unwrap_or(directory).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_what_is_free_and_what_is_left_to_write() {
        const GB: u64 = 1 << 20;
        let table = [
            ("enough", 10 * GB, 0, 10 * GB, None),
            ("built already", 10 * GB, 9 * GB, GB, None),
            ("more than expected", 10 * GB, 12 * GB, 0, None),
            (
                "nothing is built",
                10 * GB,
                0,
                9 * GB,
                Some(("9.0", "10.0")),
            ),
            (
                "a part is built",
                10 * GB,
                4 * GB,
                GB / 2,
                Some(("0.5", "6.0")),
            ),
        ];
        for (name, needed, written, free, expected) in table {
            let expected = expected.map(|(free, left)| {
                format!(
                    "{free} GB are free, and this takes about {left} GB more: make room, or set CARGO_TARGET_DIR to \
                     another disk than that of"
                )
            });
            assert_eq!(too_little(needed, written, free), expected, "{name}");
        }
    }

    #[test]
    fn the_first_number_is_read() {
        let table = [
            ("df", "    Avail\n83886080", Some(83_886_080)),
            ("du", "1234\ttarget", Some(1234)),
            ("nothing", "", None),
        ];
        for (name, answer, expected) in table {
            assert_eq!(number(Ok(answer.to_owned())), expected, "{name}");
        }
    }
}
