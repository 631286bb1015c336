//! Keeps part of the table of grants free.
//!
//! A client that knows a door's sequence can fill the table with forged sources. When less than an
//! eighth is free, grants are ended early: first those of the door that has the most; among these,
//! grants of sources without a connection, from the network that has the most of them, in the order of
//! their expiry. Sources with a connection come last, and grants given by hand are never ended early.
//! Where these fill the table, the administrator is warned once, and others end as soon as they are opened.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io::Write,
};

use anyhow::{Context as _, Result, bail};
use knock_common::{
    Address,
    access::Flow,
    grant::Grant,
    layout::{ALLOW_MAX, FLOWS_MAX, FlowKey, GrantKey},
};

use super::state::Daemon;
use crate::{
    host::clock,
    kernel::maps,
    ledger::Giver,
    model::{
        fair_shares::{self, OccupiedEntry},
        table_sizes::SizedTable,
    },
};

/// Returns the number of grants at which some are ended early, and how many remain then.
const fn marks(room: usize) -> [usize; 2] {
    [room / 8 * 7, room / 4 * 3]
}

/// What an attempt to make room found.
struct MadeRoom {
    /// How many grants it ended.
    ended: usize,
    /// How many entries of the table were given by hand.
    by_hand: usize,
}

impl<W: Write> Daemon<W> {
    /// Returns the entries of the table of flows.
    ///
    /// # Errors
    /// The map can't be read.
    pub(crate) fn flows(&mut self) -> Result<Vec<(FlowKey, u64)>> {
        Ok(maps::entries(
            &self.protection.program().flows()?,
            FLOWS_MAX,
        ))
    }

    /// Ends grants early if the table is nearly full.
    pub(super) fn keep_room(&mut self) -> Result<()> {
        let is_full = std::mem::take(&mut self.is_full);
        let room = self.protection.program().room(SizedTable::Grants);
        let [high, low] = marks(room);
        let is_held = self.held_by_hand > 0;
        if !is_full && !is_held && self.ledger.openings().count() < high {
            return Ok(());
        }
        let held = maps::entries(&self.protection.program().allow()?, ALLOW_MAX).len();
        if held < high {
            self.held_by_hand = 0;
            return Ok(());
        }
        let MadeRoom { ended, by_hand } = self.make_room(held.saturating_sub(low))?;
        self.held_by_hand = if by_hand < high { 0 } else { by_hand };
        if self.held_by_hand > 0 {
            if !is_held {
                tracing::warn!(
                    "{by_hand} of {room} grants are given by hand and do not end before their time: to leave \
                     room, grants that clients open end before theirs; `knock-user list` shows them, and \
                     `knock-user revoke` ends one"
                );
            }
        } else if ended > 0 {
            tracing::warn!(
                "{held} of {room} grants are in use: {ended} have ended before their time, those of \
                 the doors and networks with the most first; somebody who knows a sequence may be forging \
                 sources"
            );
        }
        Ok(())
    }

    /// Writes a grant given by hand, and ends another one early if the table is full.
    pub(crate) fn give_by_hand(&mut self, key: GrantKey, grant: Grant) -> Result<()> {
        match maps::raise(&mut self.protection.program().allow()?, key, grant) {
            Err(error) if maps::is_full(&error) => {}
            other => return other.context("writing the grant"),
        }
        if self.make_room(1)?.ended == 0 {
            let room = self.protection.program().room(SizedTable::Grants);
            bail!(
                "there is no room for another grant: all {room} are given by hand; `knock-user \
                 list` shows them, and `knock-user revoke` ends one"
            );
        }
        maps::raise(&mut self.protection.program().allow()?, key, grant).context(
            "writing the grant: the room that was made for it is taken already; try it again",
        )
    }

    /// Returns the sources with connections to protected ports and what grants may cover of them, each with the time of
    /// its last packet in milliseconds since boot.
    fn connected(&mut self, now_ms: u64) -> Result<HashMap<Address, u64>> {
        let idle_ms = self.settings().established.idle_ms();
        let doors = self.settings().doors.iter();
        let prefixes: BTreeSet<_> = doors.map(|door| door.grant_prefix).collect();
        let mut connected = HashMap::new();
        for (key, word) in self.flows()? {
            let flow = Flow::from_word(word);
            if now_ms < flow.until_ms(key.idle_ms(idle_ms)) {
                for prefix in &prefixes {
                    let covered = prefix.first_of(key.source);
                    let seen_ms: &mut u64 = connected.entry(covered).or_default();
                    *seen_ms = (*seen_ms).max(flow.seen_ms);
                }
            }
        }
        Ok(connected)
    }

    /// Ends up to `count` grants that were not given by hand.
    fn make_room(&mut self, count: usize) -> Result<MadeRoom> {
        let now_ms = clock::boot_ms();
        let by_hand = self
            .ledger
            .open()
            .filter(|open| matches!(open.giver, Some(Giver::Hand(_))));
        let by_hand: HashSet<_> = by_hand.map(|open| (open.source, open.door)).collect();
        let connected = self.connected(now_ms)?;
        let mut allow = self.protection.program().allow()?;
        let taken = maps::entries(&allow, ALLOW_MAX).into_iter();
        let taken = taken.map(|(key, word)| (key, Grant::from_word(word)));
        let (by_hand, taken): (Vec<_>, Vec<_>) =
            taken.partition(|(key, grant)| by_hand.contains(&(key.source, grant.door)));
        let taken = taken.into_iter().map(|(key, grant)| {
            let seen_ms = connected.get(&key.source).copied();
            OccupiedEntry {
                door: grant.door,
                source: key.source.into(),
                is_in_use: seen_ms.is_some(),
                rank: seen_ms.unwrap_or(grant.until_ms),
                what: (key, grant),
            }
        });
        let mut gone = Vec::new();
        for (key, grant) in fair_shares::to_go(taken, count) {
            // One that was refreshed meanwhile stays.
            if maps::delete_if(&mut allow, key, grant.to_word())
                .context("ending a grant to make room")?
            {
                gone.push(key);
            }
        }
        for key in &gone {
            let actions = self.ledger.removed(&[*key], now_ms);
            self.act(&actions, now_ms.saturating_mul(1_000_000));
        }
        Ok(MadeRoom {
            ended: gone.len(),
            by_hand: by_hand.len(),
        })
    }
}
