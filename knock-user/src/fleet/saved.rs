//! What a daemon has to know of a group after a restart, and neither the kernel nor the engine has.
//!
//! A grant is ended by revocations that it did not know, so a daemon that forgot what its grants know would end
//! those that were given again after a revocation. A revocation that was not written yet would be lost, and so
//! would a use of a door that was open already.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    record::{Grant, Revocation},
    uses::Claim,
};

/// The first word of the text.
const FORMAT: &str = "knock-fleet-state1";
/// The most entries of each kind; the newest are kept. All together have less than 8 MB.
const MOST: usize = 4_096;
/// The most octets of a text that is read.
pub(super) const LONGEST_STATE: u64 = 16 << 20;

/// What is kept over a restart of the daemon.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Saved {
    /// The boot in which times are valid.
    pub(super) boot: String,
    /// The name of the group.
    pub(super) group: String,
    pub(super) revocations: Vec<SavedRevocation>,
    /// Grants of this host that know revocations, or depend on claims.
    pub(super) grants: Vec<SavedGrant>,
    /// Claims of doors that are open already.
    pub(super) claims: Vec<SavedClaim>,
    /// The number of the shared configuration that is on trial.
    pub(super) trial: Option<u64>,
    /// The last one that was undone, and why.
    pub(super) undone: Option<(u64, String)>,
}

/// A revocation that this host knows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct SavedRevocation {
    pub(super) latest: Revocation,
    /// Since when this host knows each id, in milliseconds since boot.
    pub(super) since_ms: BTreeMap<u64, u64>,
    /// Until when it matters, in milliseconds since boot.
    pub(super) until_ms: u64,
}

/// A grant of this host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct SavedGrant {
    pub(super) grant: Grant,
    /// When it ends, in milliseconds since boot.
    pub(super) until_ms: u64,
    pub(super) claim: Option<u64>,
}

/// A claim that is not decided.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct SavedClaim {
    pub(super) claim: Claim,
    pub(super) grant: Grant,
}

impl Saved {
    /// Returns its text: a line with a check, and one with the content.
    pub(super) fn text(mut self) -> String {
        self.revocations
            .sort_by_key(|saved| std::cmp::Reverse(saved.until_ms));
        self.grants
            .sort_by_key(|saved| std::cmp::Reverse(saved.until_ms));
        self.claims
            .sort_by_key(|saved| std::cmp::Reverse(saved.claim.at_ms));
        self.revocations.truncate(MOST);
        self.grants.truncate(MOST);
        self.claims.truncate(MOST);
        // All keys of its maps are numbers and texts.
        let content = serde_json::to_string(&self).unwrap_or_default();
        format!("{FORMAT} {}\n{content}\n", check(&content))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (head, content) = text.split_once('\n').ok_or("it ends in its first line")?;
        let found = head
            .strip_prefix(FORMAT)
            .ok_or("it is of another version, or no state of a fleet")?;
        let content = content.trim_end_matches('\n');
        if found.trim() != check(content) {
            return Err("its check does not match its content");
        }
        serde_json::from_str(content).map_err(|_| "its content can't be read")
    }
}

fn check(content: &str) -> String {
    let octets = Sha256::digest(content.as_bytes());
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(count: u64) -> Saved {
        let revocations = (0..count).map(|id| SavedRevocation {
            latest: Revocation {
                door: None,
                source: "203.0.113.7".parse().unwrap(),
                ids: vec![id],
                after: Vec::new(),
                at_ms: id,
                host: "web-1".to_owned(),
                by: None,
            },
            since_ms: BTreeMap::from([(id, id)]),
            until_ms: id,
        });
        Saved {
            boot: "b".to_owned(),
            group: "web".to_owned(),
            revocations: revocations.collect(),
            ..Saved::default()
        }
    }

    #[test]
    fn a_damaged_text_is_refused() {
        let text = saved(2).text();
        let mut expected = saved(2);
        expected.revocations.reverse();
        assert_eq!(Saved::parse(&text), Ok(expected));
        for (name, text) in [
            ("empty", String::new()),
            ("cut", text[..text.len() - 9].to_owned()),
            (
                "only its first line",
                text.lines().next().unwrap().to_owned(),
            ),
            ("another octet", text.replace("203.0.113.7", "203.0.113.8")),
            ("another version", text.replace("state1", "state2")),
            ("zeros", "\0".repeat(4_096)),
        ] {
            assert!(Saved::parse(&text).is_err(), "{name}");
        }
    }

    #[test]
    fn the_newest_entries_are_kept() {
        let text = saved(10_000).text();
        assert!((text.len() as u64) < LONGEST_STATE);
        let read = Saved::parse(&text).unwrap();
        assert_eq!(read.revocations.len(), MOST);
        assert_eq!(read.revocations[0].until_ms, 9_999);
    }
}
