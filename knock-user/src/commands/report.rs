//! The result of a command.

use std::{fmt, io, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use knock_sequence::duration::spell;

use super::job::Job;
use crate::{host::os_error, model::terminal::harmless};

/// The result of a command.
#[derive(Debug)]
pub struct CommandReport {
    /// The command and its occasion.
    pub job: Job,
    /// The way in which it ended.
    pub outcome: CommandResult,
    /// The last lines that it printed, to standard output and standard error.
    pub output: Vec<String>,
}

/// The way in which a command ended.
#[derive(Debug)]
pub enum CommandResult {
    /// It exited.
    Exited(ExitStatus),
    /// It exceeded its time limit, and was ended.
    TimedOut,
    /// It could not be started.
    NotStarted(io::Error),
    /// It was started, and its end is unknown.
    Unknown(io::Error),
}

impl CommandReport {
    /// Returns whether the command succeeded.
    pub fn is_success(&self) -> bool {
        matches!(self.outcome, CommandResult::Exited(status) if status.success())
    }
}

impl fmt::Display for CommandReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job {
            occasion,
            source,
            door,
            command,
            ..
        } = &self.job;
        let key = occasion.key();
        let program = command.program.to_string_lossy();
        let program = harmless(&program);
        let door = harmless(door);
        write!(f, "door \"{door}\": {key} = \"{program}\" for {source}: ")?;
        match &self.outcome {
            CommandResult::Exited(status) => match (status.code(), status.signal()) {
                (Some(0), _) => f.write_str("done")?,
                (Some(code), _) => write!(f, "exit status {code}")?,
                (None, Some(signal)) => write!(f, "ended by signal {signal}")?,
                (None, None) => write!(f, "{status}")?,
            },
            CommandResult::TimedOut => {
                write!(
                    f,
                    "stopped after {}; raise command_timeout if it needs more time",
                    spell(command.timeout)
                )?;
            }
            CommandResult::NotStarted(error) => write!(f, "{}", not_started(error))?,
            CommandResult::Unknown(error) => {
                write!(f, "its end is unknown: {}", os_error::plain(error))?
            }
        }
        if !self.output.is_empty() {
            write!(f, "; it printed: {}", self.output.join(" | "))?;
        }
        Ok(())
    }
}

fn not_started(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        "there is no such program (or it is a script without its interpreter); \
         install it, or correct the path in the configuration"
            .to_owned()
    } else if kind == io::ErrorKind::PermissionDenied {
        "is not executable; make it so with chmod +x".to_owned()
    } else if error.raw_os_error() == Some(nix::libc::ENOEXEC) {
        "is not a program; a script begins with #! and the path of its interpreter".to_owned()
    } else {
        format!("could not be started: {}", os_error::reason(error, ""))
    }
}
