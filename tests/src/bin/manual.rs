//! Writes man pages and shell completions below a directory, and those of knock-fleet below another: `cargo xtask
//! dist` runs it.

use std::{env, path::PathBuf, process::ExitCode};

use knock_tests::manual;

fn main() -> ExitCode {
    let directories: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [prefix, fleet] = directories.as_slice() else {
        eprintln!("usage: manual DIRECTORY DIRECTORY-OF-KNOCK-FLEET");
        return ExitCode::from(2);
    };
    match manual::write(prefix).and_then(|()| manual::write_fleet(fleet)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "writing pages to {} and {}: {error}",
                prefix.display(),
                fleet.display()
            );
            ExitCode::FAILURE
        }
    }
}
