//! The actions that the ledger requests.

use knock_common::{Address, grant::Grant, layout::GrantKey};

/// An action of the ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LedgerAction {
    /// A door opened for a source: report it and run `on_open`.
    Opened {
        /// The source, or the first address of its prefix.
        source: Address,
        /// The index of the door.
        door: u16,
        /// When it ends, in milliseconds since boot.
        until_ms: u64,
        /// Who granted it; none if the source knocked here.
        by: Option<By>,
    },
    /// The door stays open for longer: report it.
    Refreshed {
        /// The source, or the first address of its prefix.
        source: Address,
        /// The index of the door.
        door: u16,
        /// When it ends, in milliseconds since boot.
        until_ms: u64,
        /// Who extended it; none if the source knocked here.
        by: Option<By>,
    },
    /// The door is closed again: report it and run `on_close`.
    Closed {
        /// The source, or the first address of its prefix.
        source: Address,
        /// The index of the door.
        door: u16,
        /// Why.
        ending: Ending,
    },
    /// Delete this entry of the allow map if it still has this value. Another value is newer: the
    /// kernel side has written it since.
    Remove {
        /// The key of the entry.
        key: GrantKey,
        /// The value that was read or restored, which has ended.
        grant: Grant,
    },
    /// Write this entry of the allow map if there is none (`BPF_NOEXIST`): it was given while the
    /// ended one was removed. An existing entry is newer, even if it ends earlier or has ended; report
    /// it by [`Ledger::not_missing`](super::Ledger::not_missing).
    Restore {
        /// The key of the entry.
        key: GrantKey,
        /// The value of the entry.
        grant: Grant,
    },
}

/// Who gave or ended a grant, if that was no packet to this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// A user of this host, by hand: the user id.
    Hand(u32),
    /// Another host of the group, for whatever reason.
    Host(HostId),
}

/// The number of another host; whoever gave the number knows its name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HostId(pub u16);

impl LedgerAction {
    /// Returns the index of the door that it reports about, if it is a report.
    pub const fn door(&self) -> Option<u16> {
        match self {
            Self::Opened { door, .. }
            | Self::Refreshed { door, .. }
            | Self::Closed { door, .. } => Some(*door),
            Self::Remove { .. } | Self::Restore { .. } => None,
        }
    }
}

/// The reason why a door is closed again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// The grant expired.
    Expired,
    /// A closing sequence ended it.
    Sequence {
        /// The index of the closing door, if its event was received.
        by: Option<u16>,
    },
    /// A user's SPA packet ended it.
    Packet,
    /// The door was removed from the configuration.
    Removed,
    /// The door's grants are narrower in the new configuration.
    Narrowed,
    /// A user or another host revoked the grant.
    Revoked {
        /// Which.
        by: By,
    },
}

impl Ending {
    /// The names of all endings.
    pub const NAMES: [&str; 6] = ["early", "expired", "removed", "revoked", "sequence", "spa"];

    /// Returns the name in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Removed => "removed",
            Self::Narrowed => "narrowed",
            Self::Sequence { by: None } => "early",
            Self::Sequence { by: Some(_) } => "sequence",
            Self::Packet => "spa",
            Self::Revoked { .. } => "revoked",
        }
    }
}
