//! Catches the signals that end the daemon or make it reload.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the daemon handles; caught before it protects anything.
pub struct Signals([Signal; 3]);

/// The request of a signal.
pub(super) enum SignalRequest {
    ToEnd,
    ToReload,
}

impl Signals {
    /// Catches the signals; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// They can't be caught.
    pub fn catch() -> Result<Self> {
        let on = |kind| signal(kind).context("catching signals");
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            // A terminal that closes sends it too, which must not open the ports.
            on(SignalKind::hangup())?,
        ]))
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
