//! Requests to end: Ctrl-C, and SIGTERM.

use super::KeepEvent;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::sync::mpsc::Sender;
use std::thread;

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    /// From the terminal, which sends it to the command, too.
    Terminal,
    /// From another program.
    Terminate,
}

impl Interruption {
    fn of(signal: i32) -> Self {
        match signal {
            SIGINT => Self::Terminal,
            _ => Self::Terminate,
        }
    }
}

/// Starts a thread that sends an event for each signal, which from now on does not end the program.
///
/// # Errors
///
/// The system does not deliver signals to this program.
#[cfg(unix)]
pub(super) fn watch(events: Sender<KeepEvent>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if events
                .send(KeepEvent::Interrupted(Interruption::of(signal)))
                .is_err()
            {
                return;
            }
        }
    });
    Ok(())
}

/// Starts a thread that sends an event for each signal, which from now on does not end the program.
///
/// # Errors
///
/// The system does not deliver signals to this program.
#[cfg(not(unix))]
pub(super) fn watch(events: Sender<KeepEvent>) -> io::Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    /// How often the flags are read, since nothing else reports them here.
    const LOOK: Duration = Duration::from_millis(200);

    let mut flags = Vec::new();
    for signal in [SIGINT, SIGTERM] {
        let flag = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
        flags.push((Interruption::of(signal), flag));
    }
    thread::spawn(move || {
        loop {
            thread::sleep(LOOK);
            for (interruption, flag) in &flags {
                if flag.swap(false, Ordering::Relaxed)
                    && events.send(KeepEvent::Interrupted(*interruption)).is_err()
                {
                    return;
                }
            }
        }
    });
    Ok(())
}
