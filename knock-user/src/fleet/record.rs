//! What hosts of a group write for each other.

use serde::{Deserialize, Serialize};

use super::{
    lockouts::Lockout,
    presence::Presence,
    signed::SharedConfig,
    uses::{Mark, Use, UseRecord},
};
use crate::model::prefix::Prefix;

/// A record of the engine, as it is before it is sealed. Unknown fields are ignored, so that a newer
/// version may add some.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A door was opened for a source.
    Grant(Grant),
    /// Grants of a source were ended.
    Revocation(Revocation),
    /// Something that opens a door once was used.
    Use(UseRecord),
    /// A host is connected.
    Presence(Presence),
    /// A source is locked out.
    Lockout(Lockout),
    /// A configuration for all hosts.
    Shared(SharedConfig),
}

/// A grant of a host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Grant {
    /// The name of the door.
    pub door: String,
    /// The addresses that it lets in.
    pub source: Prefix,
    /// When it was given, in milliseconds of the wall clock of its host.
    pub given_ms: u64,
    /// When it ends, in milliseconds of the wall clock of its host.
    pub until_ms: u64,
    /// How long it lasts from the moment at which the record was written, in milliseconds.
    pub length_ms: u64,
    /// The revision of the engine that its host had applied when it was given; 0 if that is unknown.
    pub seen: u64,
    /// The ids of the revocations of this source that its host knew when it was given.
    pub knows: Vec<u64>,
    /// The user id that gave it by hand; none if the source knocked.
    pub by: Option<u32>,
}

/// The end of all grants of a source that were given without knowledge of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Revocation {
    /// The name of the door; none for all doors.
    pub door: Option<String>,
    /// The addresses: grants that let one of them in end.
    pub source: Prefix,
    /// The ids of the revocations that this is; several after they were merged.
    pub ids: Vec<u64>,
    /// The ids of those that its host knew: it replaces them.
    pub after: Vec<u64>,
    /// When it was made, in milliseconds of the wall clock of its host.
    pub at_ms: u64,
    /// The name of the host at which it was made.
    pub host: String,
    /// The user id that made it; none if the source did, by a closing sequence or a packet.
    pub by: Option<u32>,
}

/// What a record is about: one record of the engine has this place.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// A grant of a host; each host has its own, so that writes never collide.
    Grant {
        /// The name of the host.
        host: String,
        /// The name of the door.
        door: String,
        /// What it lets in.
        source: Prefix,
    },
    /// A revocation.
    Revocation {
        /// The name of the door; none for all doors.
        door: Option<String>,
        /// Whose grants end.
        source: Prefix,
    },
    /// The highest line of a one-time file that was used.
    Line {
        /// What it belongs to, as in a [`Use`](super::Use).
        of: String,
    },
    /// The use of something that has no order.
    Once {
        /// What it belongs to, as in a [`Use`](super::Use).
        of: String,
        /// Which one it is.
        mark: [u64; 2],
    },
    /// The presence of a host.
    Presence {
        /// Its name.
        host: String,
    },
    /// The lockout of a source.
    Lockout {
        /// Who is locked out.
        source: Prefix,
    },
    /// The configuration for all hosts.
    Shared,
}

/// Who changed something, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The name of the host.
    pub host: String,
    /// The user id, if it was by hand.
    pub user: Option<u32>,
}

impl Place {
    /// Returns the place of the record of a use.
    pub fn of_use(used: &Use) -> Self {
        let of = used.of.clone();
        match used.mark {
            Mark::Line { .. } => Self::Line { of },
            Mark::Once { mark, .. } => Self::Once { of, mark },
        }
    }
}

impl Revocation {
    /// Returns whether it is about a grant with this door and source.
    pub fn is_about(&self, door: &str, source: Prefix) -> bool {
        self.door.as_deref().is_none_or(|own| own == door)
            && (self.source.contains(source) || source.contains(self.source))
    }

    /// Returns whether it includes or replaces all that another one of its place is.
    pub fn covers(&self, other: &Self) -> bool {
        let has = |id| self.ids.contains(id) || self.after.contains(id);
        other.ids.iter().all(has)
    }

    /// Adds those of another one of its place that it does not replace.
    pub fn merge(&mut self, other: &Self) {
        self.ids.retain(|id| !other.after.contains(id));
        self.ids.extend(&other.ids);
        self.after.extend(&other.after);
        for ids in [&mut self.ids, &mut self.after] {
            ids.sort_unstable();
            ids.dedup();
        }
        self.ids.retain(|id| !self.after.contains(id));
    }

    /// Returns who made it, and where.
    pub fn origin(&self) -> Origin {
        Origin {
            host: self.host.clone(),
            user: self.by,
        }
    }

    /// Returns its place.
    pub fn place(&self) -> Place {
        Place::Revocation {
            door: self.door.clone(),
            source: self.source,
        }
    }
}

/// Decides which grants a revocation ends, and what a claim is.
pub trait Rule {
    /// Returns whether a revocation ends a grant that it is about. Each revision is `None` until
    /// the engine has written the record.
    fn ends(
        revocation: &Revocation,
        revocation_revision: Option<u64>,
        grant: &Grant,
        grant_revision: Option<u64>,
    ) -> bool;

    /// Returns the condition of a claim where the engine is known to have a record of this revision.
    fn replaces(revision: u64) -> Option<u64> {
        Some(revision)
    }

    /// Returns whether a use that the engine has shows that a claim of this host was written.
    fn is_own(found: &UseRecord, id: u64) -> bool {
        found.has(id)
    }
}

/// The rule of the product: a revocation ends what was given without knowledge of it.
///
/// Neither the order in the engine nor a clock decides. A host that was cut off may write its grant
/// after the revocation, and would bring back what was revoked; and clocks differ.
#[derive(Clone, Copy, Debug)]
pub struct ByKnowledge;

impl Rule for ByKnowledge {
    fn ends(
        revocation: &Revocation,
        revocation_revision: Option<u64>,
        grant: &Grant,
        _grant_revision: Option<u64>,
    ) -> bool {
        let has_seen = revocation_revision.is_some_and(|revision| grant.seen >= revision);
        let knows_all = revocation.ids.iter().all(|id| grant.knows.contains(id));
        !has_seen && !knows_all
    }
}
