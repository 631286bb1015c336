//! Writes man pages and shell completions below a directory: `cargo xtask dist` runs it.

use std::{env, path::PathBuf, process::ExitCode};

use knock_tests::manual;

fn main() -> ExitCode {
    let Some(prefix) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: manual DIRECTORY");
        return ExitCode::from(2);
    };
    match manual::write(&prefix) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("writing pages to {}: {error}", prefix.display());
            ExitCode::FAILURE
        }
    }
}
