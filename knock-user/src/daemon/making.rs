//! A configuration that is made ready by another thread: reading, compiling and loading the largest
//! one takes many seconds, in which the loop goes on hearing of interfaces, events and requests.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::sync::oneshot;

use super::{Daemon, change::Changes, trial::Trial};
use crate::{
    apply::{AttachOptions, Prepared, plan::Plan},
    config,
    control::{Access, Server},
    host::{clock, os_error, service_manager},
};

/// A configuration that can be put in place.
pub(super) struct Ready {
    pub(super) plan: Plan,
    pub(super) attach_options: AttachOptions,
    pub(super) prepared: Prepared,
    /// Who may ask from now on, if that was read again.
    access: Option<Access>,
}

/// What is done with a configuration that is ready.
pub(super) enum Purpose {
    /// It was read again.
    Reload {
        /// For how long it is on trial, if it is.
        confirm: Option<Duration>,
        /// The digest of what a restart did not put in force before, if this one is on trial.
        rejected: Option<u64>,
    },
    /// It is the one before the trial.
    GoBack(Box<Trial>),
}

/// Is called with the outcome of something that takes long.
pub(crate) type Then<T> = Box<dyn FnOnce(Result<T>)>;

/// A configuration that is not ready yet.
pub(super) struct Making {
    purpose: Purpose,
    /// None if a signal caused it, or the end of a trial.
    then: Option<Then<Changes>>,
    ready: oneshot::Receiver<Result<Ready>>,
    is_given_up: Arc<Mutex<bool>>,
    thread: JoinHandle<()>,
    since_ms: u64,
}

impl Making {
    /// What it is for, to whoever asks for something else meanwhile.
    pub(super) fn reason_to_wait(&self) -> String {
        let seconds = clock::boot_ms().saturating_sub(self.since_ms) / 1_000;
        let what = match self.purpose {
            Purpose::Reload { .. } => "a reload is under way",
            Purpose::GoBack(_) => {
                "the trial ended without a confirmation, and the previous configuration is being \
                 put back"
            }
        };
        format!("{what} (since {seconds}s): ask again when it has ended")
    }

    /// Sees to it that the thread touches nothing from now on, since nobody needs it any more;
    /// returns the trial that goes on by that.
    pub(super) fn give_up(self) -> Option<Trial> {
        // This waits while the thread makes pins, and not while it reads files.
        *self
            .is_given_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(then) = self.then {
            then(Err(anyhow!("the daemon is ending")));
        }
        match self.purpose {
            Purpose::Reload { .. } => None,
            Purpose::GoBack(trial) => Some(*trial),
        }
    }
}

/// The outcome of what is being made; never if nothing is.
pub(super) async fn made(making: &mut Option<Making>) -> Result<Ready> {
    match making {
        Some(making) => match (&mut making.ready).await {
            Ok(ready) => ready,
            Err(_) => bail!("the thread that makes the configuration ready has ended"),
        },
        None => std::future::pending().await,
    }
}

impl<W: Write> Daemon<W> {
    /// Returns what is being made ready, for people, if something is.
    pub(crate) fn under_way(&self) -> Option<String> {
        self.making.as_ref().map(Making::reason_to_wait)
    }

    /// Begins to read the configuration again; if that can't be done, nothing changes. `then` is
    /// called when it is in force, or with the reason why it is not.
    ///
    /// With `confirm`, the reload is rolled back unless it is confirmed in that time.
    pub(crate) fn begin_to_reload(
        &mut self,
        confirm: Option<Duration>,
        then: Option<Then<Changes>>,
    ) {
        self.log_files.reopen();
        if let Some(making) = &self.making {
            let reason = making.reason_to_wait();
            match then {
                Some(then) => then(Err(anyhow!(reason))),
                // What is being read may be older than the signal.
                None => self.reloads_again = true,
            }
            return;
        }
        if let Some(trial) = &self.trial {
            let reason = trial.reason_to_wait();
            match then {
                Some(then) => then(Err(anyhow!(reason))),
                None => tracing::warn!("the configuration is not reloaded: {reason}"),
            }
            return;
        }
        if then.is_none() && self.is_file_rejected() {
            service_manager::reloading();
            let file = self.run.config.display();
            tracing::warn!(
                "the configuration is not reloaded: {file} was on trial and was not confirmed, and \
                 has not changed since; `knock-user reload --confirm 60s` tries it again, \
                 `knock-user reload` puts it in force"
            );
            self.notify_ready();
            return;
        }
        // Whoever is killed before it is in force leaves nothing that puts it there without a trial.
        let rejected = match confirm.map(|_| config::digest_of_file(&self.run.config)) {
            Some(Ok(text)) => match self.protection.set_rejected(Some(text)) {
                Ok(before) => before,
                Err(error) => {
                    let error = error.context("the configuration is not reloaded");
                    match then {
                        Some(then) => then(Err(error)),
                        None => tracing::warn!("{}", os_error::describe(&error)),
                    }
                    return;
                }
            },
            // What can't be read is not put in force either.
            Some(Err(_)) | None => self.protection.registry().rejected,
        };
        service_manager::reloading();
        let run = self.run.clone();
        self.begin(Purpose::Reload { confirm, rejected }, then, move || {
            Plan::read_again(&run)
        });
    }

    /// Whether the file still has the text that was on trial last and was not confirmed. A signal,
    /// which a rotation of log files sends too, does not apply that.
    fn is_file_rejected(&self) -> bool {
        let rejected = self.protection.registry().rejected;
        rejected.is_some_and(|rejected| {
            config::digest_of_file(&self.run.config).is_ok_and(|text| text == rejected)
        })
    }

    /// Begins to make a configuration ready, which `plan` finds.
    pub(super) fn begin(
        &mut self,
        purpose: Purpose,
        then: Option<Then<Changes>>,
        plan: impl FnOnce() -> Result<Plan> + Send + 'static,
    ) {
        let (done, ready) = oneshot::channel();
        let is_given_up = Arc::new(Mutex::new(false));
        let given_up = Arc::clone(&is_given_up);
        let run = self.run.clone();
        // What is known now stays true: nothing else is put in place meanwhile. The mode is the
        // only thing that depends on the plan, and it matters only when that is attached.
        // A trial is one of the kernel side only where nothing was in force before.
        let preparation = self.protection.preparation(AttachOptions {
            confirm_by_ms: None,
            ..self.plan.attach_options(&run)
        });
        // What is gone back from is not put in force by a restart either.
        let rejected = match purpose {
            Purpose::Reload { .. } => None,
            Purpose::GoBack(_) => self.protection.registry().text,
        };
        // Maps that are not pinned any more would be made anew, without grants.
        let pinned = self.protection.pin_again();
        let is_read = matches!(purpose, Purpose::Reload { .. });
        let make = move || -> Result<Ready> {
            let plan = plan()?;
            pinned?;
            let group = plan.settings().control.group.as_deref();
            // The database of groups may be far away.
            let access = is_read.then(|| Access::new(group)).transpose()?;
            // Before the work that takes long.
            let interfaces = plan.interfaces(&run)?;
            let attach_options = AttachOptions {
                confirm_by_ms: None,
                rejected,
                ..plan.attach_options(&run)
            };
            let prepared = preparation.make(&plan, &interfaces, &given_up)?;
            Ok(Ready {
                plan,
                attach_options,
                prepared,
                access,
            })
        };
        let thread = thread::spawn(move || {
            // Nobody waits for it any more.
            let _given_up = done.send(make());
        });
        self.making = Some(Making {
            purpose,
            then,
            ready,
            is_given_up,
            thread,
            since_ms: clock::boot_ms(),
        });
    }

    /// Puts in place what is ready, or reports why it is not.
    pub(super) fn end_making(&mut self, ready: Result<Ready>, control: &mut Server) -> Result<()> {
        let Some(making) = self.making.take() else {
            return Ok(());
        };
        let Making {
            purpose,
            then,
            thread,
            ..
        } = making;
        // It has nothing more to do.
        let _ended = thread.join();
        let done = match purpose {
            Purpose::Reload { confirm, rejected } => {
                let changes = ready.and_then(|mut ready| {
                    // The time to confirm it begins now.
                    ready.attach_options.confirm_by_ms = confirm.map(clock::boot_ms_after);
                    // What can't be applied is refused before anything changes.
                    if let Some(access) = ready.access.take() {
                        control.admit(access)?;
                    }
                    self.reload(ready).inspect_err(|_| admit_as_before(control))
                });
                if changes.is_err()
                    && confirm.is_some()
                    && let Err(error) = self.protection.set_rejected(rejected)
                {
                    tracing::warn!("{}", os_error::describe(&error));
                }
                self.reload_failed = changes.as_ref().err().map(os_error::describe);
                self.notify_ready();
                changes
            }
            Purpose::GoBack(trial) => {
                admit_as_before(control);
                self.go_back_with(*trial, ready);
                Ok(Changes::default())
            }
        };
        // What fails here is tried again, and reported, with the next look at frames.
        let _tried_again = self.begin_copy();
        // What was used while nobody put it away.
        self.follow_sequences();
        if std::mem::take(&mut self.reloads_again) {
            self.begin_to_reload(None, None);
        }
        match then {
            Some(then) => {
                then(done);
                Ok(())
            }
            None => done
                .map(drop)
                .context("the configuration is not reloaded, and nothing changes"),
        }
    }
}

fn admit_as_before(control: &mut Server) {
    if let Err(error) = control.admit_as_before() {
        tracing::warn!("{}", os_error::describe(&error));
    }
}
