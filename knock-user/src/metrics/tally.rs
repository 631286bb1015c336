//! The counts of a daemon since its start, besides the counters of the kernel side.
//!
//! Doors and users are named as in the configuration; a reload removes those that it no longer has. A
//! client can't add a name.

use std::collections::{BTreeMap, BTreeSet};

use knock_common::{Reason, event::Event};

use crate::{
    commands::{CommandReport, CommandResult, Occasion},
    ledger::LedgerAction,
};

/// Counts since the start of the daemon.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    doors: BTreeMap<String, DoorTally>,
    users: BTreeMap<String, BTreeMap<Reason, u64>>,
    /// The names of users, by number.
    names: BTreeMap<u16, String>,
}

/// Counts of a door.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DoorTally {
    /// How often it opened for a source.
    pub opened: u64,
    /// How often it stayed open for longer.
    pub refreshed: u64,
    /// How often it closed for a source, by the name of the ending.
    pub closed: BTreeMap<&'static str, u64>,
    /// Events of the kernel side about it, by reason.
    pub events: BTreeMap<Reason, u64>,
    /// Ends of commands: the key of the command, and the outcome.
    pub commands: BTreeMap<(&'static str, CommandOutcome), u64>,
}

/// The outcome of a command.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CommandOutcome {
    /// It exited with status 0.
    Success,
    /// It exited with another status, or by a signal.
    Failure,
    /// It exceeded its time limit.
    Timeout,
    /// It could not be started.
    NotStarted,
    /// It was started, and its end is unknown.
    Unknown,
    /// Too many commands waited.
    LeftOut,
}

impl CommandOutcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Success,
        Self::Failure,
        Self::Timeout,
        Self::NotStarted,
        Self::Unknown,
        Self::LeftOut,
    ];

    /// Returns the value of the label `outcome`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
            Self::NotStarted => "not-started",
            Self::Unknown => "unknown",
            Self::LeftOut => "left-out",
        }
    }
}

impl From<&CommandReport> for CommandOutcome {
    fn from(report: &CommandReport) -> Self {
        match report.outcome {
            CommandResult::Exited(status) if status.success() => Self::Success,
            CommandResult::Exited(_) => Self::Failure,
            CommandResult::TimedOut => Self::Timeout,
            CommandResult::NotStarted(_) => Self::NotStarted,
            CommandResult::Unknown(_) => Self::Unknown,
        }
    }
}

impl Tally {
    /// Counts an event of the kernel side; `door` is the door's name, if it is about one.
    pub fn event(&mut self, event: &Event, door: Option<&str>) {
        let Some(reason) = event.reason() else {
            return;
        };
        if let Some(door) = door {
            raise(self.door(door).events.entry(reason).or_default());
        }
        if let Some(user) = self.names.get(&event.user).filter(|_| event.user != 0) {
            let counts = match self.users.get_mut(user) {
                Some(counts) => counts,
                None => self.users.entry(user.clone()).or_default(),
            };
            raise(counts.entry(reason).or_default());
        }
    }

    /// Counts an action of the ledger about a door with this name.
    pub fn action(&mut self, action: &LedgerAction, door: &str) {
        match action {
            LedgerAction::Opened { .. } => raise(&mut self.door(door).opened),
            LedgerAction::Refreshed { .. } => raise(&mut self.door(door).refreshed),
            LedgerAction::Closed { ending, .. } => {
                raise(self.door(door).closed.entry(ending.name()).or_default());
            }
            LedgerAction::Remove { .. } | LedgerAction::Restore { .. } => {}
        }
    }

    /// Counts the outcome of a command of a door.
    pub fn command(&mut self, door: &str, occasion: Occasion, outcome: CommandOutcome) {
        let counts = &mut self.door(door).commands;
        raise(counts.entry((occasion.key(), outcome)).or_default());
    }

    /// Keeps the counts of these doors and users alone; `users` are all that may still send packets,
    /// by number.
    pub fn retain(&mut self, doors: &BTreeSet<&str>, users: BTreeMap<u16, String>) {
        self.doors.retain(|door, _| doors.contains(door.as_str()));
        let names: BTreeSet<_> = users.values().collect();
        self.users.retain(|user, _| names.contains(user));
        self.names = users;
    }

    /// Returns the counts of a door.
    pub fn of_door(&self, name: &str) -> Option<&DoorTally> {
        self.doors.get(name)
    }

    /// Returns the counts of a user, by reason.
    pub fn of_user(&self, name: &str) -> Option<&BTreeMap<Reason, u64>> {
        self.users.get(name)
    }

    fn door(&mut self, name: &str) -> &mut DoorTally {
        // Most events are about a door that was counted before.
        if !self.doors.contains_key(name) {
            self.doors.insert(name.to_owned(), DoorTally::default());
        }
        self.doors.entry(name.to_owned()).or_default()
    }
}

const fn raise(count: &mut u64) {
    *count = count.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use knock_common::Address;

    use super::*;
    use crate::ledger::{By, Ending};

    fn event(reason: Reason, user: u16) -> Event {
        Event {
            reason: reason as u8,
            user,
            ..bytemuck::Zeroable::zeroed()
        }
    }

    fn names(names: &[(u16, &str)]) -> BTreeMap<u16, String> {
        let named = |(number, name): &(u16, &str)| (*number, (*name).to_owned());
        names.iter().map(named).collect()
    }

    #[test]
    fn events_are_counted_by_names_of_the_configuration() {
        let mut tally = Tally::default();
        tally.retain(&["ssh"].into(), names(&[(3, "alice")]));
        for (name, reason, user, door) in [
            ("a knock", Reason::FirstKnock, 0, Some("ssh")),
            ("another one", Reason::FirstKnock, 0, Some("ssh")),
            ("no door", Reason::NoGrant, 0, None),
            ("a user", Reason::Opened, 3, Some("ssh")),
            ("a user without a name", Reason::SpaForged, 9, None),
        ] {
            tally.event(&event(reason, user), door);
            assert!(tally.doors.len() <= 1 && tally.users.len() <= 1, "{name}");
        }
        let events = &tally.of_door("ssh").unwrap().events;
        let expected = [(Reason::FirstKnock, 2), (Reason::Opened, 1)];
        assert_eq!(*events, expected.into());
        assert_eq!(
            *tally.of_user("alice").unwrap(),
            [(Reason::Opened, 1)].into()
        );
        let unknown = Event {
            reason: u8::MAX,
            ..event(Reason::Opened, 3)
        };
        tally.event(&unknown, Some("ssh"));
        assert_eq!(tally.of_door("ssh").unwrap().events.len(), 2);
    }

    #[test]
    fn actions_and_commands_are_counted_by_door() {
        let mut tally = Tally::default();
        let source = Address::ANY;
        let (door, until_ms, by) = (0, 1, None);
        for action in [
            LedgerAction::Opened {
                source,
                door,
                until_ms,
                by,
            },
            LedgerAction::Refreshed {
                source,
                door,
                until_ms,
                by,
            },
            LedgerAction::Opened {
                source,
                door,
                until_ms,
                by,
            },
            LedgerAction::Closed {
                source,
                door,
                ending: Ending::Expired,
            },
            LedgerAction::Closed {
                source,
                door,
                ending: Ending::Revoked { by: By::Hand(0) },
            },
            LedgerAction::Closed {
                source,
                door,
                ending: Ending::Sequence { by: None },
            },
        ] {
            tally.action(&action, "ssh");
        }
        tally.command("ssh", Occasion::Open, CommandOutcome::LeftOut);
        assert_eq!(
            *tally.of_door("ssh").unwrap(),
            DoorTally {
                opened: 2,
                refreshed: 1,
                closed: [("early", 1), ("expired", 1), ("revoked", 1)].into(),
                events: BTreeMap::new(),
                commands: [(("on_open", CommandOutcome::LeftOut), 1)].into(),
            }
        );
        for ending in tally.of_door("ssh").unwrap().closed.keys() {
            assert!(Ending::NAMES.contains(ending), "{ending}");
        }
    }

    #[test]
    fn a_reload_removes_what_the_configuration_no_longer_has() {
        let mut tally = Tally::default();
        tally.retain(&["ssh", "web"].into(), names(&[(1, "alice"), (2, "bob")]));
        for (user, door) in [(1, "ssh"), (2, "web")] {
            tally.event(&event(Reason::Opened, user), Some(door));
        }
        tally.retain(&["web"].into(), names(&[(2, "bob")]));
        assert!(tally.of_door("ssh").is_none() && tally.of_user("alice").is_none());
        assert!(tally.of_door("web").is_some() && tally.of_user("bob").is_some());
    }
}
