//! What other hosts of the group did, done here.

use std::{collections::BTreeSet, io::Write, time::Instant};

use anyhow::Result;
use knock_common::{Address, grant::Grant};

use super::{super::state::Daemon, link::now};
use crate::{
    fleet::{FleetAction, Origin, Step},
    host::os_error,
    ledger::{By, HostId},
    model::prefix::Prefix,
};

/// A grant that lasts longer by less than this, in milliseconds, is the one that is there.
const SAME_MS: u64 = 50;

impl<W: Write> Daemon<W> {
    /// Sends lines, and opens and closes doors.
    pub(super) fn take_steps(&mut self, steps: Vec<Step>) {
        if let Some(fleet) = &mut self.fleet {
            fleet.save();
        }
        for step in steps {
            match step {
                Step::Send(request) => {
                    let outgoing = self.fleet.as_ref().and_then(|fleet| fleet.outgoing.clone());
                    // Without a process, it is repeated once there is one.
                    if let Some(outgoing) = outgoing {
                        outgoing.send(request);
                    }
                }
                Step::Act(action) => self.act_for_group(action),
            }
        }
    }

    fn act_for_group(&mut self, action: FleetAction) {
        let done = match action {
            FleetAction::Open {
                door,
                source,
                until_ms,
                by,
            } => self.open_for_group(&door, source, until_ms, &by),
            FleetAction::Close {
                door,
                source,
                by,
                is_own,
                // Only uses of what opens once cut connections, and this host claims none.
                cuts: _,
            } => self.close_for_group(&door, source, &by, is_own),
            // The exchange has sealed those.
            FleetAction::Put { .. }
            // This host claims nothing, and keeps its own account of what was used.
            | FleetAction::Claimed { .. }
            | FleetAction::Denied { .. }
            | FleetAction::UsedTwice { .. }
            | FleetAction::Spend { .. }
            // Lockouts stay at their host.
            | FleetAction::LockOut { .. }
            // The configuration of this host is its own file.
            | FleetAction::Adopt { .. }
            | FleetAction::Confirm { .. }
            | FleetAction::Undo { .. }
            | FleetAction::Refused { .. }
            | FleetAction::Beat { .. } => Ok(()),
            FleetAction::Mismatch { door, source, host } => {
                self.leave_out(&door, source, &host);
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::warn!("{}", os_error::describe(&error));
        }
    }

    fn open_for_group(
        &mut self,
        door: &str,
        source: Prefix,
        until_ms: u64,
        by: &Origin,
    ) -> Result<()> {
        let Some(number) = self.number_in_group(door) else {
            return Ok(());
        };
        let address = Address::from(source.address);
        let grant = Grant {
            until_ms,
            door: number,
        };
        // A grant of this host comes back from the engine, with an end that was computed by another clock.
        let held_ms = self.ledger.until_ms(address, number);
        if held_ms.is_some_and(|held_ms| held_ms.saturating_add(SAME_MS) >= until_ms) {
            return Ok(());
        }
        let by = By::Host(self.host_id(&by.host));
        self.let_in(address, grant, by)
    }

    /// Warns of a grant that is not given here, because it would cover other addresses.
    fn leave_out(&mut self, door: &str, source: Prefix, host: &str) {
        let line = format!(
            "{source} may use {door} at {host}, and not here, where grants of the door cover other prefixes: write \
             the same grant_prefix at all hosts of the group"
        );
        let Some(fleet) = &mut self.fleet else {
            return;
        };
        let line = fleet.left_outs.note(door, line, Instant::now());
        line.inspect(|line| tracing::warn!("{line}"));
    }

    fn close_for_group(
        &mut self,
        door: &str,
        source: Prefix,
        by: &Origin,
        is_own: bool,
    ) -> Result<()> {
        let Some(number) = self.number_in_group(door) else {
            return Ok(());
        };
        if is_own
            && self
                .fleet
                .as_ref()
                .is_some_and(|fleet| fleet.settings.host != by.host)
        {
            tracing::warn!(
                "{source} was let in here through {door} without knowledge that {} had revoked its grants: the grant \
                 ends, and the source has to knock again",
                by.host
            );
        }
        let own = self
            .fleet
            .as_ref()
            .is_some_and(|fleet| fleet.settings.host == by.host);
        let by = match by.user.filter(|_| own) {
            Some(uid) => By::Hand(uid),
            None => By::Host(self.host_id(&by.host)),
        };
        self.shut_out(source.address.into(), Some(number), by)?;
        Ok(())
    }

    /// Opens what other hosts have opened already, for doors that the group did not open before a reload.
    pub(in crate::daemon) fn open_new_doors(&mut self, before: &BTreeSet<String>) {
        let Some(fleet) = &self.fleet else {
            return;
        };
        for action in fleet.exchange.group().open(now()) {
            let is_new =
                matches!(&action, FleetAction::Open { door, .. } if !before.contains(door));
            if is_new {
                self.act_for_group(action);
            }
        }
    }

    /// Returns the number of a host in the ledger; the console learns its name.
    fn host_id(&mut self, name: &str) -> HostId {
        let Some(fleet) = &mut self.fleet else {
            return HostId(0);
        };
        let (id, is_new) = fleet.hosts.id(name);
        if is_new {
            self.console.name_host(id, name.to_owned());
        }
        id
    }
}
