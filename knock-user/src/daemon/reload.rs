//! Reloads the configuration: begins to prepare it, and puts it in force when it is prepared.

use std::{io::Write, time::Duration};

use anyhow::{Context as _, Result, anyhow};

use super::{
    pending::{ChangePurpose, Changes, PendingConfiguration, Ready, Then},
    state::Daemon,
};
use crate::{
    apply::plan::Plan,
    config,
    control::ControlServer,
    host::{clock, os_error, service_manager},
};

impl<W: Write> Daemon<W> {
    /// Begins to read the configuration again; on failure nothing is changed. `then` receives the
    /// result.
    ///
    /// With `confirm`, the reload is rolled back unless it is confirmed in that time.
    pub(crate) fn begin_to_reload(
        &mut self,
        confirm: Option<Duration>,
        then: Option<Then<Changes>>,
    ) {
        self.log_files.reopen();
        if let Some(pending) = &self.pending {
            let reason = pending.reason_to_wait();
            match then {
                Some(then) => then(Err(anyhow!(reason))),
                // The text that is being read may be older than the signal.
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
        // If this process is killed before the trial begins, a restart must not put the file in force
        // without one.
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
            // A file that can't be read is not put in force either.
            Some(Err(_)) | None => self.protection.registry().rejected,
        };
        service_manager::reloading();
        let run = self.run.clone();
        self.begin(
            ChangePurpose::Reload { confirm, rejected },
            then,
            move || Plan::read_again(&run),
        );
    }

    /// Returns whether the file is unchanged since its trial expired. SIGHUP does not put such a file in
    /// force, since a rotation of log files sends that signal too.
    fn is_file_rejected(&self) -> bool {
        let rejected = self.protection.registry().rejected;
        rejected.is_some_and(|rejected| {
            config::digest_of_file(&self.run.config).is_ok_and(|text| text == rejected)
        })
    }

    /// Puts the prepared configuration in force, or reports why it can't be.
    pub(super) fn end_preparation(
        &mut self,
        ready: Result<Ready>,
        control: &mut ControlServer,
    ) -> Result<()> {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        let PendingConfiguration {
            purpose,
            then,
            thread,
            ..
        } = pending;
        // The thread has sent its result and ends.
        let _ended = thread.join();
        let done = match purpose {
            ChangePurpose::Reload { confirm, rejected } => {
                let changes = ready.and_then(|mut ready| {
                    // The trial begins now.
                    ready.attach_options.confirm_by_ms = confirm.map(clock::boot_ms_after);
                    // An access that can't be applied is refused before anything is changed.
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
            ChangePurpose::RollBack(trial) => {
                admit_as_before(control);
                self.finish_roll_back(*trial, ready);
                Ok(Changes::default())
            }
        };
        // A failure is retried, and reported, with the next count of frames.
        let _tried_again = self.begin_copy();
        // Sequences may have been used while none was retired.
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
                .context("the configuration is not reloaded, and nothing was changed"),
        }
    }
}

fn admit_as_before(control: &mut ControlServer) {
    if let Err(error) = control.admit_as_before() {
        tracing::warn!("{}", os_error::describe(&error));
    }
}
