//! How a shared configuration reaches the hosts: some begin, each confirms it or returns to what it had, and the
//! others follow if none complained.
//!
//! A host that can't be reached any more can't complain. So each one reports its trial before it begins, and
//! whoever is gone since counts as a complaint.

use super::{
    presence::{Hosts, SharedState, Stage},
    signed::{AdminPublic, SharedConfig},
};

/// The shared configuration of a host.
#[derive(Clone, Debug, Default)]
pub(super) struct Rollout {
    /// Who signs, and the name of the group.
    trust: Option<(AdminPublic, String)>,
    /// The number of the one that is in force; 0 for none.
    pub(super) applied: u64,
    /// The newest one of the engine.
    latest: Option<SharedConfig>,
    /// Since when enough hosts have confirmed the latest, in milliseconds since boot.
    ready_ms: Option<u64>,
    state: State,
    /// The last one that was undone here, and why.
    pub(super) undone: Option<(u64, String)>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Idle,
    /// The trial is being reported to the others.
    Announced(u64),
    /// It is being tried.
    Trial(Trial),
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Trial {
    number: u64,
    /// When it is undone, in milliseconds since boot.
    ends_ms: u64,
    /// Since when it is in force, in milliseconds since boot.
    adopted_ms: Option<u64>,
    /// Whether the link was made again since then.
    is_linked_again: bool,
}

/// What a host does with a shared configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// Put it in force on trial.
    Adopt(SharedConfig),
    /// Keep it.
    Confirm(u64),
    /// Return to what was in force before.
    Undo(u64, String),
}

impl Rollout {
    /// Sets who signs for the group, and the number that is in force.
    pub(super) fn trust(&mut self, admin: AdminPublic, group: &str, applied: u64) {
        self.trust = Some((admin, group.to_owned()));
        self.applied = applied;
    }

    /// Takes what the engine has.
    ///
    /// # Errors
    /// Returns why it is refused.
    pub(super) fn take(&mut self, config: SharedConfig) -> Result<(), &'static str> {
        let (admin, group) = self
            .trust
            .as_ref()
            .ok_or("this host has no `admin` in [fleet], so it takes no shared configuration")?;
        admin.check(group, &config)?;
        if config.number < self.applied {
            return Err("its number is below the one in force: numbers only grow");
        }
        let newest = self.latest.as_ref().map_or(0, |latest| latest.number);
        if config.number > newest {
            self.latest = Some(config);
            self.ready_ms = None;
        }
        Ok(())
    }

    /// Returns what the others have to know.
    pub(super) fn report(&self) -> Option<SharedState> {
        let state = |number, stage| SharedState {
            number,
            stage,
            reason: None,
        };
        match (&self.state, &self.undone) {
            (State::Announced(number) | State::Trial(Trial { number, .. }), _) => {
                Some(state(*number, Stage::Trial))
            }
            (State::Idle, Some((number, reason))) if *number > self.applied => Some(SharedState {
                reason: Some(reason.clone()),
                ..state(*number, Stage::Undone)
            }),
            (State::Idle, _) => (self.applied > 0).then(|| state(self.applied, Stage::Applied)),
        }
    }

    /// Returns the number of the trial, if there is one.
    pub(super) fn trial(&self) -> Option<u64> {
        match &self.state {
            State::Trial(trial) => Some(trial.number),
            State::Idle | State::Announced(_) => None,
        }
    }

    /// Ends a trial that was not confirmed in time.
    pub(super) fn time_out(&mut self, now_ms: u64) -> Option<Turn> {
        let State::Trial(trial) = &self.state else {
            return None;
        };
        if now_ms < trial.ends_ms {
            return None;
        }
        let number = trial.number;
        let reason = match trial.adopted_ms {
            Some(_) => "the host did not get in sync with it in time",
            None => "it was not put in force in time",
        };
        self.undo(number, reason);
        Some(Turn::Undo(number, reason.to_owned()))
    }

    /// Continues; `rank` orders hosts by their names.
    pub(super) fn step(
        &mut self,
        hosts: &Hosts,
        own: &str,
        rank: impl Fn(&str) -> u64,
        now_ms: u64,
    ) -> Option<Turn> {
        match &self.state {
            State::Trial(_) => None,
            State::Idle => {
                let number = self.wanted(hosts, own)?;
                if self.is_first(hosts, own, rank) || self.is_ready(hosts, number, now_ms) {
                    self.state = State::Announced(number);
                }
                None
            }
            State::Announced(number) => {
                let number = *number;
                if self.wanted(hosts, own) != Some(number) {
                    self.state = State::Idle;
                    return None;
                }
                let reported = hosts.shared(own)?;
                if (reported.number, reported.stage) != (number, Stage::Trial) {
                    return None;
                }
                let config = self.latest.clone()?;
                self.state = State::Trial(Trial {
                    number,
                    ends_ms: now_ms.saturating_add(config.stages.confirm_ms),
                    adopted_ms: None,
                    is_linked_again: false,
                });
                Some(Turn::Adopt(config))
            }
        }
    }

    /// Returns the number that this host should come to, unless somebody complained.
    fn wanted(&self, hosts: &Hosts, own: &str) -> Option<u64> {
        let number = self.latest.as_ref()?.number;
        let undone = self.undone.as_ref().map_or(0, |(number, _)| *number);
        let is_new = number > self.applied && number != undone;
        (is_new && !hosts.complains(number, own)).then_some(number)
    }

    fn quota(&self, hosts: &Hosts) -> usize {
        let percent = self
            .latest
            .as_ref()
            .map_or(100, |latest| latest.stages.first_percent.clamp(1, 100));
        (hosts.count() * usize::from(percent)).div_ceil(100).max(1)
    }

    fn is_first(&self, hosts: &Hosts, own: &str, rank: impl Fn(&str) -> u64) -> bool {
        let before = hosts.here().filter(|host| rank(host) < rank(own));
        before.count() < self.quota(hosts)
    }

    fn is_ready(&mut self, hosts: &Hosts, number: u64, now_ms: u64) -> bool {
        if hosts.applied(number) < self.quota(hosts) {
            self.ready_ms = None;
            return false;
        }
        let wait_ms = self
            .latest
            .as_ref()
            .map_or(0, |latest| latest.stages.wait_ms);
        let ready_ms = *self.ready_ms.get_or_insert(now_ms);
        now_ms >= ready_ms.saturating_add(wait_ms)
    }

    /// Records whether the one on trial was put in force.
    pub(super) fn adopted(&mut self, number: u64, result: Result<(), String>, now_ms: u64) {
        let State::Trial(trial) = &mut self.state else {
            return;
        };
        if trial.number != number {
            return;
        }
        match result {
            Ok(()) => trial.adopted_ms = Some(now_ms),
            Err(reason) => self.undo(number, &reason),
        }
    }

    fn undo(&mut self, number: u64, reason: &str) {
        self.undone = Some((number, reason.to_owned()));
        self.state = State::Idle;
    }

    /// Records that the process that makes the link started again.
    pub(super) fn linked_again(&mut self) {
        if let State::Trial(trial) = &mut self.state {
            trial.is_linked_again |= trial.adopted_ms.is_some();
        }
    }

    /// Records that the engine was reached at a moment of the boot clock; confirms what is on trial.
    pub(super) fn in_sync(&mut self, at_ms: u64) -> Option<Turn> {
        let State::Trial(trial) = &self.state else {
            return None;
        };
        let is_after = trial
            .adopted_ms
            .is_some_and(|adopted_ms| at_ms > adopted_ms);
        if !is_after || !trial.is_linked_again {
            return None;
        }
        self.applied = trial.number;
        self.state = State::Idle;
        Some(Turn::Confirm(self.applied))
    }

    /// Takes over what was kept over a restart of the daemon, during which a trial ended.
    pub(super) fn restore(&mut self, trial: Option<u64>, undone: Option<(u64, String)>) {
        let ended = trial.map(|number| {
            let reason = "knock-user ended during the trial";
            (number, reason.to_owned())
        });
        self.undone = ended.or(undone);
    }
}
