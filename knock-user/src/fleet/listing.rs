//! What a group has open, for a list.

use super::{group::Group, record::Rule, times::Now};
use crate::model::prefix::Prefix;

/// A grant of a host of the group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupGrant {
    /// The name of the door.
    pub door: String,
    /// The addresses that it lets in.
    pub source: Prefix,
    /// The name of the host that gave it.
    pub host: String,
    /// The user id that gave it by hand; none if the source knocked.
    pub by: Option<u32>,
    /// When it ends here, in milliseconds since boot.
    pub until_ms: u64,
}

impl<R: Rule> Group<R> {
    /// Returns the grants of all hosts that last, by door, source and host.
    pub fn grants(&self, now: Now) -> Vec<GroupGrant> {
        let mut all = Vec::new();
        for ((door, source), entry) in &self.entries {
            let grant = |host: &str, by, until_ms| GroupGrant {
                door: door.clone(),
                source: *source,
                host: host.to_owned(),
                by,
                until_ms,
            };
            let host = self.member.host.as_str();
            let own = entry.own.as_ref();
            all.extend(own.map(|own| grant(host, own.grant.by, own.until_ms)));
            let others = entry.received.iter();
            // This host's record has what its grant has.
            let others = others.filter(|(name, received)| *name != host && !received.is_revoked);
            all.extend(others.map(|(name, other)| grant(name, other.grant.by, other.until_ms)));
        }
        all.retain(|grant| now.boot_ms < grant.until_ms);
        all
    }
}
