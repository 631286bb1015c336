//! Catches the signals that end the daemon or make it reload.

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal as UnixSignal};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the daemon handles; caught before it protects anything.
pub struct Signals([Signal; 3]);

/// The request of a signal.
pub(super) enum SignalRequest {
    ToEnd,
    ToReload,
}

impl Signals {
    /// Holds back SIGHUP until [`Signals::catch`] or [`Signals::release`]: until it is caught, it would end the
    /// process, and a service manager or a rotation of log files may send it from the first moment on. Call it before
    /// there are other threads. SIGINT and SIGTERM end the process, which has attached nothing yet.
    pub fn hold_back() {
        // It fails only for an unknown action.
        let _done = held_back().thread_block();
    }

    /// Ends what [`Signals::hold_back`] began, for a process that handles no signals.
    pub fn release() {
        let _done = held_back().thread_unblock();
    }

    /// Catches the signals, also one that was held back; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// They can't be caught.
    pub fn catch() -> Result<Self> {
        let on = |kind| signal(kind).context("catching signals");
        let caught = Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            // A terminal that closes sends it too, which must not open the ports.
            on(SignalKind::hangup())?,
        ]);
        Self::release();
        Ok(caught)
    }

    pub(super) async fn next(&mut self) -> SignalRequest {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => SignalRequest::ToEnd,
            _ = terminate.recv() => SignalRequest::ToEnd,
            _ = hangup.recv() => SignalRequest::ToReload,
        }
    }
}

fn held_back() -> SigSet {
    SigSet::from(UnixSignal::SIGHUP)
}
