//! How a group takes part in a shared configuration.

use sha2::{Digest as _, Sha256};

use super::{
    action::FleetAction,
    group::Group,
    record::{Place, Record, Rule},
    rollout::Turn,
    signed::SharedConfig,
    times::Now,
};

impl<R: Rule> Group<R> {
    /// Continues with a shared configuration.
    pub(super) fn roll_out(&mut self, now: Now) -> Vec<FleetAction> {
        let turn = self
            .rollout
            .step(&self.hosts, &self.member.host, rank, now.boot_ms);
        self.take_turn(turn)
    }

    pub(super) fn take_turn(&mut self, turn: Option<Turn>) -> Vec<FleetAction> {
        self.hosts.report(self.rollout.report());
        self.is_unsaved |= turn.is_some();
        let action = turn.map(|turn| match turn {
            Turn::Adopt(SharedConfig { number, text, .. }) => FleetAction::Adopt { number, text },
            Turn::Confirm(number) => FleetAction::Confirm { number },
            Turn::Undo(number, reason) => FleetAction::Undo { number, reason },
        });
        action.into_iter().collect()
    }

    /// Takes a shared configuration that the engine has at a revision.
    pub(super) fn take_shared(&mut self, config: SharedConfig, revision: u64) -> Vec<FleetAction> {
        self.shared_revision = revision;
        let number = config.number;
        match self.rollout.take(config) {
            Ok(()) => Vec::new(),
            Err(reason) => vec![FleetAction::Refused { number, reason }],
        }
    }

    /// Takes what the engine has instead of the shared configuration that was to be written.
    pub(super) fn shared_refused(
        &mut self,
        found: Option<Record>,
        revision: u64,
    ) -> Vec<FleetAction> {
        self.shared_revision = revision;
        let mut actions = Vec::new();
        if let Some(Record::Shared(config)) = found {
            let number = self.outgoing.as_ref().map_or(0, |outgoing| outgoing.number);
            if config.number >= number {
                self.outgoing = None;
                let reason = "the group has one with this number or a higher one";
                actions.push(FleetAction::Refused { number, reason });
            }
            actions.extend(self.take_shared(config, revision));
        }
        if self.outgoing.is_some() {
            self.outbox.add(Place::Shared);
        }
        actions
    }
}

/// Returns the place of a host in the order in which hosts begin.
fn rank(host: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(host.as_bytes()));
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
