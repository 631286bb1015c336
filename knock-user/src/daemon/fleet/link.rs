//! This host as a member of its group, and its process.

use std::path::{Path, PathBuf};

use knock_common::Address;
use knock_sequence::duration::{millis, spell};
use knock_wire::{Open, PROTOCOL};

use super::{
    super::throttle::Throttle,
    child::{Keeper, Outgoing, Told},
    hosts::Hosts,
};
use crate::{
    fleet::{Confirmed, Exchange, GroupGrant, Keyring, LinkState, Member, Now, state_file},
    host::{
        clock::{self, Clock},
        os_error,
    },
    ledger::{Ending, LedgerAction},
    model::fleet::{Alone, Fleet},
    sequences::state_directory,
};

/// The number of the group of this host, of which there is one.
const NUMBER: u16 = 1;

/// Gets how far it has got.
type Then = Box<dyn FnOnce(Outcome)>;

/// How far a revocation of the group has got.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The group.
    pub(crate) group: String,
    /// Whether the engine has it.
    pub(crate) is_written: bool,
    /// Which hosts have applied it.
    pub(crate) confirmed: Confirmed,
    /// Why this host is cut off, if it is.
    pub(crate) because: Option<String>,
}

/// A caller that waits until all hosts have applied a revocation.
pub(super) struct Waiting {
    /// The revocation.
    pub(super) id: u64,
    pub(super) until_ms: u64,
    pub(super) then: Then,
}

/// What a packet to this host opened or closed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Noted {
    /// A door opened, or stays open for longer.
    Opened {
        source: Address,
        door: u16,
        until_ms: u64,
    },
    /// A closing sequence or an SPA packet closed it.
    Closed { source: Address, door: u16 },
}

/// This host as a member of its group.
pub(crate) struct FleetLink {
    pub(crate) settings: Fleet,
    pub(super) keyring: Keyring,
    pub(crate) exchange: Exchange,
    pub(super) keeper: Keeper,
    pub(super) outgoing: Option<Outgoing>,
    pub(crate) hosts: Hosts,
    /// Since when it has not followed the engine, in milliseconds since boot; none while it does.
    pub(crate) lost_since_ms: Option<u64>,
    /// What was last reported: whether it follows the engine; none before the first report.
    pub(super) reported: Option<bool>,
    /// What the kernel side has.
    pub(super) until_ms: u64,
    /// Where what a restart has to know is kept; none if no directory can be used.
    state: Option<PathBuf>,
    /// The id of this boot.
    boot: String,
    /// What was not passed on to the group yet.
    pub(super) noted: Vec<Noted>,
    /// How many records could not be read when that was last reported, and when, in milliseconds since boot.
    pub(super) unreadable: (u64, u64),
    /// Who waits until a revocation is applied.
    pub(super) callers: Vec<Waiting>,
    /// Warnings of grants that are not opened here.
    pub(super) left_outs: Throttle,
}

impl FleetLink {
    pub(super) fn new(settings: Fleet, keyring: Keyring) -> Self {
        let member = Member {
            host: settings.host.clone(),
            longest_ms: millis(settings.longest),
            grace_ms: millis(settings.grace),
        };
        let mut exchange = Exchange::new(&settings.group, NUMBER, member, keyring.clone());
        let boot = state_directory::boot().unwrap_or_default();
        let state = place(&settings);
        if let Some(state) = &state {
            restore(&mut exchange, state, &boot);
        }
        Self {
            exchange,
            state,
            boot,
            settings,
            keyring,
            keeper: Keeper::start(),
            outgoing: None,
            hosts: Hosts::default(),
            lost_since_ms: Some(clock::boot_ms()),
            reported: None,
            until_ms: 0,
            noted: Vec::new(),
            unreadable: (0, 0),
            callers: Vec::new(),
            left_outs: Throttle::new(1, "more grants of other hosts that are not opened here"),
        }
    }

    /// Writes what a restart has to know, if it has changed.
    pub(super) fn save(&mut self) {
        let (Some(path), Some(text)) = (&self.state, self.exchange.unsaved(&self.boot)) else {
            return;
        };
        if let Err(error) = state_file::write(path, &text) {
            let shown = path.display().to_string();
            tracing::warn!(
                "what this host knows of its group is lost at a restart: {shown} can't be written: {}",
                os_error::reason(&error, &shown)
            );
        }
    }

    /// Keeps what a packet to this host opened or closed, to pass it on to the group later.
    pub(in crate::daemon) fn note(&mut self, action: &LedgerAction) {
        let noted = match *action {
            LedgerAction::Opened {
                source,
                door,
                until_ms,
                by: None,
            }
            | LedgerAction::Refreshed {
                source,
                door,
                until_ms,
                by: None,
            } => Noted::Opened {
                source,
                door,
                until_ms,
            },
            LedgerAction::Closed {
                source,
                door,
                ending: Ending::Sequence { .. } | Ending::Packet,
            } => Noted::Closed { source, door },
            LedgerAction::Opened { by: Some(_), .. }
            | LedgerAction::Refreshed { by: Some(_), .. }
            | LedgerAction::Closed {
                ending:
                    Ending::Expired | Ending::Removed | Ending::Narrowed | Ending::Revoked { .. },
                ..
            }
            | LedgerAction::Remove { .. }
            | LedgerAction::Restore { .. } => return,
        };
        self.noted.push(noted);
    }

    /// Returns the reason why the engine is not followed, if it is not.
    pub(crate) fn reason(&self) -> String {
        match self.exchange.state() {
            LinkState::Starting => {
                "knock-fleet has not reached a member of the engine yet".to_owned()
            }
            LinkState::Linked { member, .. } => {
                format!(
                    "{member} has not answered for {}",
                    spell(self.settings.grace)
                )
            }
            LinkState::Lost { reason } => reason.clone(),
        }
    }

    /// Returns that this host is cut off, since when, why, and what follows from that, if it is.
    pub(crate) fn cut_off(&self) -> Option<String> {
        let since = Clock::now().wall(self.lost_since_ms?);
        let follows = match self.settings.alone {
            Alone::Closed => "no knock opens a door of the group",
            Alone::Local => "knocks open here alone",
        };
        let (group, reason) = (&self.settings.group, self.reason());
        Some(format!(
            "cut off from the group {group} since {since}, so {follows}: {reason}"
        ))
    }

    /// Returns the grants that all hosts of the group have given.
    pub(crate) fn grants(&self) -> Vec<GroupGrant> {
        self.exchange.group().grants(now())
    }

    /// Returns how many records and lines wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.exchange.group().unwritten() + self.outgoing.as_ref().map_or(0, Outgoing::waiting)
    }

    /// Returns whether the engine has answered within `grace`.
    pub(crate) const fn is_in_sync(&self) -> bool {
        self.lost_since_ms.is_none()
    }

    /// Returns the first line to a process that was started.
    pub(super) fn open(&self) -> Open {
        let Fleet {
            servers,
            ca,
            cert,
            key,
            watches,
            ..
        } = self.settings.clone();
        Open {
            protocol: PROTOCOL,
            servers,
            ca,
            cert,
            key,
            watches,
        }
    }
}

/// Returns where a host keeps what it knows of its group.
fn place(settings: &Fleet) -> Option<PathBuf> {
    let Fleet { group, host, .. } = settings;
    match state_directory::place_of(&format!("fleet-{group}-{host}.json")) {
        Ok(path) => Some(path),
        Err(reason) => {
            tracing::warn!("what this host knows of its group is lost at a restart: {reason}");
            None
        }
    }
}

/// Takes over what an earlier process knew.
fn restore(exchange: &mut Exchange, path: &Path, boot: &str) {
    let shown = path.display().to_string();
    let reason = match state_file::read(path) {
        Ok(None) => return,
        Ok(Some(text)) => match exchange.restore(&text, boot) {
            Ok(()) => return,
            Err(reason) => reason.to_owned(),
        },
        Err(error) => os_error::reason(&error, &shown),
    };
    let aside = match state_file::set_aside(path) {
        Ok(aside) => format!("it is kept as {}", aside.display()),
        Err(error) => os_error::reason(&error, &shown),
    };
    tracing::warn!(
        "{shown} can't be used, so this host knows of its group only what the engine and the grants have: {reason}; \
         {aside}"
    );
}

/// Returns the present, by both clocks.
pub(super) fn now() -> Now {
    Now {
        boot_ms: clock::boot_ms(),
        wall_ms: clock::unix_ms(),
    }
}

/// Waits for a report of the process of a group; never returns without a group.
pub(in crate::daemon) async fn told(fleet: &mut Option<FleetLink>) -> Option<Told> {
    match fleet {
        Some(fleet) => fleet.keeper.told().await,
        None => std::future::pending().await,
    }
}
