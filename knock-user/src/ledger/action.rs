//! What the ledger asks for.

use knock_common::{Address, access::Grant, layout::GrantKey};

/// One thing to do or to tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// A door opened for a source: tell it and run `on_open`.
    Opened {
        /// For whom.
        source: Address,
        /// Index of the door.
        door: u16,
        /// When it ends, in milliseconds since boot.
        until_ms: u64,
        /// The user who opened it by hand; none if the source knocked.
        by: Option<u32>,
    },
    /// It stays open for longer: tell it.
    Refreshed {
        /// For whom.
        source: Address,
        /// Index of the door.
        door: u16,
        /// When it ends, in milliseconds since boot.
        until_ms: u64,
        /// The user who did that by hand; none if the source knocked.
        by: Option<u32>,
    },
    /// It is closed again: tell it and run `on_close`.
    Closed {
        /// For whom.
        source: Address,
        /// Index of the door.
        door: u16,
        /// Why.
        ending: Ending,
    },
    /// Delete this entry of the allow map; it has ended.
    Remove {
        /// Which entry.
        key: GrantKey,
    },
    /// Write this entry of the allow map if there is none (`BPF_NOEXIST`): it was given while the
    /// ended one was removed. What is there is newer, even if it ends earlier or has ended.
    Restore {
        /// Which entry.
        key: GrantKey,
        /// What it holds.
        grant: Grant,
    },
}

/// Why a door is closed again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Its time was over.
    Expired,
    /// A closing sequence ended it.
    Sequence {
        /// Index of the closing door, if its event was heard.
        by: Option<u16>,
    },
    /// The configuration no longer has the door.
    Removed,
    /// Somebody ended it by hand.
    Revoked {
        /// The user.
        by: u32,
    },
}
