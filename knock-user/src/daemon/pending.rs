//! A configuration that another thread prepares: reading, compiling and loading the largest one takes
//! many seconds, during which the loop continues to handle interfaces, events and requests.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use tokio::sync::oneshot;

use super::trial::Trial;
use crate::{
    apply::{PreparedConfiguration, options::AttachOptions, plan::Plan},
    control::SocketAccess,
    host::clock,
};

/// A prepared configuration, which can be put in force.
pub(super) struct Ready {
    pub(super) plan: Plan,
    pub(super) attach_options: AttachOptions,
    pub(super) prepared: PreparedConfiguration,
    /// Who may use the control socket, if that was read again.
    pub(super) access: Option<SocketAccess>,
}

/// Why a configuration is prepared.
pub(super) enum ChangePurpose {
    /// The file was read again.
    Reload {
        /// How long it is on trial, if it is.
        confirm: Option<Duration>,
        /// The digest of the file that a restart must not put in force, as registered before.
        rejected: Option<u64>,
    },
    /// The trial expired, and the previous configuration is restored.
    RollBack(Box<Trial>),
}

/// A callback for the result of a long operation.
pub(crate) type Then<T> = Box<dyn FnOnce(Result<T>)>;

/// A configuration that another thread prepares.
pub(super) struct PendingConfiguration {
    pub(super) purpose: ChangePurpose,
    /// None if a signal caused it, or the end of a trial.
    pub(super) then: Option<Then<Changes>>,
    pub(super) ready: oneshot::Receiver<Result<Ready>>,
    pub(super) is_given_up: Arc<Mutex<bool>>,
    pub(super) thread: JoinHandle<()>,
    pub(super) since_ms: u64,
}

impl PendingConfiguration {
    /// Returns the reason why another request has to wait.
    pub(super) fn reason_to_wait(&self) -> String {
        let seconds = clock::boot_ms().saturating_sub(self.since_ms) / 1_000;
        let what = match self.purpose {
            ChangePurpose::Reload { .. } => "a reload is under way",
            ChangePurpose::RollBack(_) => {
                "the trial ended without a confirmation, and the previous configuration is being \
                 restored"
            }
        };
        format!("{what} (since {seconds}s): ask again when it has ended")
    }

    /// Cancels the preparation: the thread changes nothing from now on. Returns the trial that
    /// continues because of that.
    pub(super) fn give_up(self) -> Option<Trial> {
        // This waits while the thread creates pins, but not while it reads files.
        *self
            .is_given_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(then) = self.then {
            then(Err(anyhow!("the daemon is ending")));
        }
        match self.purpose {
            ChangePurpose::Reload { .. } => None,
            ChangePurpose::RollBack(trial) => Some(*trial),
        }
    }
}

/// Waits for the configuration that is being prepared; never returns if there is none.
pub(super) async fn wait_until_ready(pending: &mut Option<PendingConfiguration>) -> Result<Ready> {
    match pending {
        Some(pending) => match (&mut pending.ready).await {
            Ok(ready) => ready,
            Err(_) => bail!("the thread that makes the configuration ready has ended"),
        },
        None => std::future::pending().await,
    }
}

/// The result of a reload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The file of the configuration.
    pub(crate) config: String,
    /// The changes, each as a phrase.
    pub(crate) words: Vec<String>,
    /// Warnings about the new configuration, as lines.
    pub(crate) warnings: Vec<String>,
}
