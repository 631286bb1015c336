//! What is known about one door and one source.

use std::collections::BTreeMap;

use super::{
    record::{Grant, Origin, Rule},
    revocations::Revocations,
};

/// The grants of a door for a source, from all hosts of the group.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// The grant that was given here.
    pub(super) own: Option<Own>,
    /// The grants in the engine, by the names of the hosts that gave them; this host's, too.
    pub(super) received: BTreeMap<String, Received>,
    /// Until when it is open here, in milliseconds since boot, as far as this room knows.
    pub(super) open_ms: u64,
    /// The end that the allow map had when the daemon started, beside a grant that was known; in milliseconds
    /// since boot.
    pub(super) adopted_ms: Option<u64>,
}

/// A grant that was given here.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// The grant at the moment at which it was given.
    pub(super) grant: Grant,
    /// When it ends, in milliseconds since boot.
    pub(super) until_ms: u64,
    /// The revision at which the engine has it; none if it has none or an older one.
    pub(super) revision: Option<u64>,
    /// The number of the write that is under way with this grant.
    pub(super) in_flight: Option<u64>,
    /// Whether it was found after a restart, so that another host may have given it.
    pub(super) is_adopted: bool,
    /// The id of the claim on which it depends: it is written with that.
    pub(super) claim: Option<u64>,
}

/// A grant in the engine.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) grant: Grant,
    pub(super) revision: u64,
    /// When it ends here, in milliseconds since boot.
    pub(super) until_ms: u64,
    /// Whether a revocation ended it; it never counts again.
    pub(super) is_revoked: bool,
}

/// What has to change so that a door is open for a source as long as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    None,
    /// Open it until then, on behalf of a host and a user.
    Open {
        until_ms: u64,
        host: String,
        user: Option<u32>,
    },
    /// End it, because somebody revoked it, then open it again until then, if that is in the future.
    Close {
        by: Origin,
        is_own: bool,
        until_ms: u64,
        host: String,
        user: Option<u32>,
    },
}

impl Own {
    /// Makes a grant that is not written yet.
    pub(super) const fn new(grant: Grant, until_ms: u64) -> Self {
        Self {
            grant,
            until_ms,
            revision: None,
            in_flight: None,
            is_adopted: false,
            claim: None,
        }
    }
}

impl Entry {
    /// Drops grants that were revoked or have ended; returns what has to change here. `used_by` is who
    /// used what opened it here, if that has ended the grant.
    pub(super) fn settle<R: Rule>(
        &mut self,
        revocations: &Revocations<R>,
        host: &str,
        used_by: Option<Origin>,
        now_ms: u64,
    ) -> Change {
        let mut is_own = used_by.is_some();
        let mut because = used_by;
        self.own.take_if(|own| own.until_ms <= now_ms);
        if let Some(own) = &self.own
            && let Some(ending) = revocations.ending(&own.grant, own.revision)
        {
            because = Some(ending.origin());
            is_own = true;
            self.own = None;
        }
        let mut longest = match &self.own {
            Some(own) => (own.until_ms, host.to_owned(), own.grant.by),
            None => (now_ms, String::new(), None),
        };
        for (host, received) in &mut self.received {
            if received.is_revoked {
                continue;
            }
            if let Some(ending) = revocations.ending(&received.grant, Some(received.revision)) {
                received.is_revoked = true;
                because.get_or_insert_with(|| ending.origin());
            } else if received.until_ms > longest.0 {
                longest = (received.until_ms, host.clone(), received.grant.by);
            }
        }
        let (until_ms, host, user) = longest;
        let before_ms = self.open_ms.max(now_ms);
        match because {
            _ if before_ms < until_ms => {
                self.open_ms = until_ms;
                Change::Open {
                    until_ms,
                    host,
                    user,
                }
            }
            Some(by) if until_ms < before_ms => {
                self.open_ms = until_ms;
                Change::Close {
                    by,
                    is_own,
                    until_ms,
                    host,
                    user,
                }
            }
            // Without a revocation, what is open ends by itself and no earlier.
            Some(_) | None => Change::None,
        }
    }

    /// Drops what has ended; returns whether anything is left.
    pub(super) fn expire(&mut self, now_ms: u64) -> bool {
        self.own.take_if(|own| own.until_ms <= now_ms);
        self.received
            .retain(|_, received| now_ms < received.until_ms);
        self.own.is_some() || !self.received.is_empty() || self.open_ms > now_ms
    }
}
