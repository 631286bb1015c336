//! Loads programs of the object into the kernel.

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};

use crate::{host::os_error, kernel::entry::Entry};

pub(crate) const INCOMPLETE: &str =
    "the kernel object lacks a program: rebuild knock-user with `cargo xtask build-ebpf`";

/// How many of the last lines of the verifier's log an error shows.
const VERIFIER_LINES: usize = 12;

/// Returns a program of the object, and loads it if it is not loaded.
pub(super) fn entry(ebpf: &mut Ebpf, entry: Entry) -> Result<&mut Program> {
    let program = ebpf.program_mut(entry.name()).context(INCOMPLETE)?;
    if program.fd().is_err() {
        if let Program::Xdp(program) = &mut *program {
            program.load().map_err(load_error)?;
        } else if let Program::SchedClassifier(program) = &mut *program {
            program.load().map_err(load_error)?;
        }
    }
    Ok(program)
}

pub(super) fn load_error(error: ProgramError) -> anyhow::Error {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        anyhow!(
            "the kernel rejected the program: {}\n  kernels from 6.1 on accept it; the \
             verifier's last lines are:\n    {}",
            os_error::plain(&io_error),
            last_lines(&verifier_log.to_string()).join("\n    ")
        )
    } else {
        anyhow::Error::new(error).context("loading the program")
    }
}

fn last_lines(log: &str) -> Vec<&str> {
    let lines: Vec<_> = log.lines().collect();
    let last = lines.len().saturating_sub(VERIFIER_LINES);
    lines.into_iter().skip(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_verifier_log_is_shown() {
        let long: String = (0..40).map(|line| format!("line {line}\n")).collect();
        for (name, log, first, count) in [
            ("empty", "", None, 0),
            ("short", "one\ntwo\n", Some("one"), 2),
            ("long", &long, Some("line 28"), VERIFIER_LINES),
        ] {
            let shown = last_lines(log);
            assert_eq!(shown.first().copied(), first, "{name}");
            assert_eq!(shown.len(), count, "{name}");
        }
    }
}
