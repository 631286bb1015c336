//! Leases, which keys that end in the same minute share.

use std::{cell::RefCell, collections::HashMap};

use knock_wire::Put;

use crate::{
    clock,
    engine::{Member, Trouble},
};

/// Keys that end within this time share a lease, in seconds.
const SHARED_S: u64 = 60;

/// The leases of this process.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Each with the number of the minute at whose end it ends.
    known: RefCell<HashMap<u64, i64>>,
}

impl Leases {
    /// Returns the lease of each key that is written.
    ///
    /// # Errors
    /// The member does not answer.
    pub(crate) async fn of(
        &self,
        member: &impl Member,
        put: &Put,
    ) -> Result<Vec<Option<i64>>, Trouble> {
        let mut leases = Vec::with_capacity(put.writes.len());
        for write in &put.writes {
            leases.push(match write.keep_s {
                Some(keep_s) => Some(self.get(member, keep_s, clock::now_ms() / 1_000).await?),
                None => None,
            });
        }
        Ok(leases)
    }

    /// Returns a lease that lasts at least `keep_s` seconds.
    async fn get(&self, member: &impl Member, keep_s: u64, now_s: u64) -> Result<i64, Trouble> {
        // One more second, because the engine counts from when it makes the lease.
        let end = now_s
            .saturating_add(keep_s)
            .saturating_add(1)
            .div_ceil(SHARED_S);
        self.known
            .borrow_mut()
            .retain(|end, _| *end * SHARED_S > now_s);
        if let Some(lease) = self.known.borrow().get(&end) {
            return Ok(*lease);
        }
        let lease = member.lease(end * SHARED_S - now_s).await?;
        self.known.borrow_mut().insert(end, lease);
        Ok(lease)
    }

    /// Forgets leases that the engine no longer has.
    pub(crate) fn forget(&self, leases: &[Option<i64>]) {
        let mut known = self.known.borrow_mut();
        known.retain(|_, lease| !leases.contains(&Some(*lease)));
    }
}
