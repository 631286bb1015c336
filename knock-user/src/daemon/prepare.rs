//! Prepares a configuration in a thread, while the loop continues.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    thread,
};

use anyhow::Result;
use tokio::sync::oneshot;

use super::{
    pending::{ChangePurpose, Changes, PendingConfiguration, Ready, Then},
    state::Daemon,
};
use crate::{
    apply::{options::AttachOptions, plan::Plan},
    control::SocketAccess,
    host::clock,
};

impl<W: Write> Daemon<W> {
    /// Describes the preparation that is under way, if there is one.
    pub(crate) fn under_way(&self) -> Option<String> {
        self.pending
            .as_ref()
            .map(PendingConfiguration::reason_to_wait)
    }

    /// Begins to prepare the configuration that `plan` returns.
    pub(super) fn begin(
        &mut self,
        purpose: ChangePurpose,
        then: Option<Then<Changes>>,
        plan: impl FnOnce() -> Result<Plan> + Send + 'static,
    ) {
        let (done, ready) = oneshot::channel();
        let is_given_up = Arc::new(Mutex::new(false));
        let given_up = Arc::clone(&is_given_up);
        let run = self.run.clone();
        // This stays valid because nothing else is put in force meanwhile. Only the attach mode depends
        // on the new plan, and it matters only when that plan is attached. The kernel side enforces a
        // trial only where nothing was in force before.
        let preparation = self.protection.preparation(AttachOptions {
            confirm_by_ms: None,
            ..self.plan.attach_options(&run)
        });
        // A restart does not put the rejected configuration in force either.
        let rejected = match purpose {
            ChangePurpose::Reload { .. } => None,
            ChangePurpose::RollBack(_) => self.protection.registry().text,
        };
        // Maps without pins would be created again, without grants.
        let pinned = self.protection.pin_again();
        let is_read = matches!(purpose, ChangePurpose::Reload { .. });
        let make = move || -> Result<Ready> {
            let plan = plan()?;
            pinned?;
            let group = plan.settings().control.group.as_deref();
            // The group database may be on the network.
            let access = is_read.then(|| SocketAccess::new(group)).transpose()?;
            // Before the long work.
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
            // The receiver is gone if the preparation was cancelled.
            let _given_up = done.send(make());
        });
        self.pending = Some(PendingConfiguration {
            purpose,
            then,
            ready,
            is_given_up,
            thread,
            since_ms: clock::boot_ms(),
        });
    }
}
