//! The command that runs while the door is kept open.

use super::KeepEvent;
use super::error::KeepError;
use std::ffi::OsString;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::Sender;
use std::thread;

/// A command that runs.
#[derive(Debug)]
pub(super) struct RunningCommand {
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "elsewhere there are no signals to pass on")
    )]
    id: u32,
}

impl RunningCommand {
    /// Starts the command; [`KeepEvent::Exited`] reports its end.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub(super) fn start(
        words: &[OsString],
        events: Sender<KeepEvent>,
    ) -> Result<Option<Self>, KeepError> {
        let Some((program, arguments)) = words.split_first() else {
            return Ok(None);
        };
        let child = Command::new(program).args(arguments).spawn();
        let mut child = child.map_err(|cause| KeepError::NotRun {
            program: program.to_string_lossy().into_owned(),
            cause,
        })?;
        let id = child.id();
        thread::spawn(move || {
            // The receiver ends with this event.
            let _sent = match child.wait() {
                Ok(status) => events.send(KeepEvent::Exited(code(status))),
                Err(_) => events.send(KeepEvent::Exited(1)),
            };
        });
        Ok(Some(Self { id }))
    }

    /// Passes SIGTERM on.
    #[cfg(unix)]
    pub(super) fn terminate(&self) {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;

        if let Ok(id) = i32::try_from(self.id) {
            // A command that has ended needs no signal.
            let _gone = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }

    /// Does nothing: the system ends the command with its console.
    #[cfg(not(unix))]
    pub(super) fn terminate(&self) {}
}

/// Returns the exit code that a shell would give: 128 and the number for a signal.
#[cfg(unix)]
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;

    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Returns the exit code, or 1 where it does not fit.
#[cfg(not(unix))]
fn code(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}
