//! Keeps the numbers of nodes and sequences stable while the sequences of a configuration change.
//!
//! An attempt is stored as the number of a node. So a beginning that remains keeps its number, and
//! a number that becomes free is not reused before every attempt at it has expired.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    ops::Range,
};

use knock_common::{
    layout::{DOOR_ENTRIES_MAX, FIRST_NODES_MAX, NODES_MAX, Symbol},
    time::Moment,
};

use super::{automaton::Automaton, conflict::Conflict, edge::EdgeFrom};
use crate::model::settings::{AcceptedSequence, Sequences};

/// Spare numbers for each one that changing sequences take at first: how often all of them may
/// change while an attempt lasts.
const SPARE: u32 = 16;
/// Spare numbers for sequences that become longer.
const MORE: u32 = 1_024;

/// The numbers in use.
#[derive(Clone, Debug, Default)]
pub(super) struct IdPool {
    firsts: IdRange<(EdgeFrom, Symbol)>,
    deeper: IdRange<(EdgeFrom, Symbol)>,
    /// Entries of `DOORS`, by number of the door and id of the sequence.
    entries: IdRange<(u16, u32)>,
    /// Numbers of nodes; the pool has more than are needed at first.
    spare: u32,
    /// The longest time of an attempt.
    attempt_max_ticks: u32,
}

/// The capacity of the maps that grow while the daemon runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Capacity {
    /// Elements of `NODES`.
    pub nodes: u32,
    /// Elements of `EDGES`.
    pub edges: u32,
    /// Elements of `DOORS`.
    pub doors: u32,
}

impl Capacity {
    /// Returns a capacity without spare elements.
    pub(super) fn of(nodes: usize, edges: usize, doors: usize) -> Self {
        let [nodes, edges, doors] =
            [nodes, edges, doors].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        Self {
            nodes,
            edges,
            doors,
        }
    }
}

impl IdPool {
    /// Creates the pool for changing sequences, whose entries follow those of the doors.
    pub(super) fn new(doors_end: u32, sequences: &Sequences, attempt_max_ticks: u32) -> Self {
        let all = || sequences.values().flatten();
        let length =
            |sequence: &AcceptedSequence| sequence.knocks.len() + sequence.per_source.len();
        let entries = spare(all().count());
        let end = doors_end.saturating_add(entries).min(DOOR_ENTRIES_MAX);
        Self {
            entries: IdRange::within(doors_end..end),
            spare: spare(all().map(length).sum()),
            attempt_max_ticks,
            ..Self::default()
        }
    }

    /// Adds spare numbers for the nodes of an automaton.
    fn make_room(&mut self, automaton: &Automaton) {
        let all = automaton.ways().len() as u32;
        let firsts = automaton.first_count() as u32;
        let spare = self.spare;
        let first_end = firsts.saturating_add(spare).min(FIRST_NODES_MAX) + 1;
        let end = first_end.saturating_add(all - firsts).saturating_add(spare);
        // 0 is the root.
        self.firsts = IdRange::within(1..first_end);
        self.deeper = IdRange::within(first_end..end.min(NODES_MAX));
    }

    /// Returns the number of the entry of a door's sequence.
    pub(super) fn entry(&mut self, door: u16, sequence_id: u32) -> Option<u16> {
        let number = self.entries.number((door, sequence_id))?;
        u16::try_from(number).ok()
    }

    /// Returns the number of each node, by the one that it has in the automaton. Numbers that are
    /// no longer used are quarantined for the longest time of an attempt, counted from
    /// `changed_ms`, in milliseconds since boot.
    ///
    /// # Errors
    /// Returns an error if no number is left.
    pub(super) fn number(
        &mut self,
        automaton: &Automaton,
        changed_ms: Option<u64>,
    ) -> Result<Vec<u32>, Conflict> {
        if changed_ms.is_none() {
            self.make_room(automaton);
        }
        let mut numbers: Vec<u32> = vec![0; automaton.ways().len().max(1)];
        let ways = (0..).zip(automaton.ways()).skip(1);
        for (node, &(from, symbol)) in ways {
            let (from, table) = match from {
                EdgeFrom::Root(_) => (from, &mut self.firsts),
                // A node comes after its parent.
                EdgeFrom::Node(before) => {
                    (EdgeFrom::Node(numbers[before as usize]), &mut self.deeper)
                }
            };
            numbers[node] = table.number((from, symbol)).ok_or_else(no_room)?;
        }
        self.release(changed_ms.unwrap_or(0));
        Ok(numbers)
    }

    /// Starts a new assignment.
    pub(super) fn begin(&mut self, now_ms: u64) {
        self.firsts.begin(now_ms);
        self.deeper.begin(now_ms);
        self.entries.begin(now_ms);
    }

    fn release(&mut self, now_ms: u64) {
        let lasts_ms = Moment::default()
            .after_ticks(self.attempt_max_ticks)
            .millis();
        // One second more, since the clocks of the CPUs differ.
        let until_ms = now_ms.saturating_add(lasts_ms).saturating_add(1_000);
        self.firsts.finish(until_ms);
        self.deeper.finish(until_ms);
        self.entries.finish(until_ms);
    }

    /// Returns how large the maps have to be, with this many edges now.
    pub(super) fn room(&self, edges: usize) -> Capacity {
        let edges = u32::try_from(edges).unwrap_or(u32::MAX);
        Capacity {
            nodes: self.deeper.range.end,
            edges: edges.saturating_mul(2).saturating_add(SPARE * MORE),
            doors: self.entries.range.end,
        }
    }
}

/// Returns how many numbers to provide if this many are needed at first.
fn spare(needed: usize) -> u32 {
    let needed = u32::try_from(needed).unwrap_or(u32::MAX);
    needed.saturating_mul(SPARE).saturating_add(MORE)
}

pub(super) fn no_room() -> Conflict {
    Conflict::of_file(
        "door",
        "sequences change faster than attempts to knock them end: lower sequence_timeout, or use fewer \
         sequences at a time"
            .to_owned(),
    )
}

/// Numbers of a range, by owner.
#[derive(Clone, Debug)]
struct IdRange<K> {
    range: Range<u32>,
    known: HashMap<K, Assigned>,
    /// Quarantined numbers, and when they may be reused, in milliseconds since boot.
    quarantined: BTreeMap<u32, u64>,
    free: Vec<u32>,
    /// The lowest number that was never assigned.
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Assigned {
    number: u32,
    asked: bool,
}

impl<K> Default for IdRange<K> {
    fn default() -> Self {
        Self {
            range: 0..0,
            known: HashMap::new(),
            quarantined: BTreeMap::new(),
            free: Vec::new(),
            next: 0,
        }
    }
}

impl<K: Eq + Hash> IdRange<K> {
    fn within(range: Range<u32>) -> Self {
        Self {
            next: range.start,
            range,
            ..Self::default()
        }
    }

    fn begin(&mut self, now_ms: u64) {
        for held in self.known.values_mut() {
            held.asked = false;
        }
        let free = &mut self.free;
        self.quarantined.retain(|&number, until_ms| {
            let rests = *until_ms > now_ms;
            if !rests {
                free.push(number);
            }
            rests
        });
    }

    fn number(&mut self, key: K) -> Option<u32> {
        if let Some(held) = self.known.get_mut(&key) {
            held.asked = true;
            return Some(held.number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let fresh = self.range.contains(&self.next).then_some(self.next)?;
                self.next += 1;
                fresh
            }
        };
        let asked = true;
        self.known.insert(key, Assigned { number, asked });
        Some(number)
    }

    fn finish(&mut self, until_ms: u64) {
        let gone = self.known.extract_if(|_, held| !held.asked);
        self.quarantined
            .extend(gone.map(|(_, held)| (held.number, until_ms)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_quarantined_before_reuse() {
        let mut numbered = IdRange::within(5..8);
        let mut at = |now_ms: u64, wanted: [&'static str; 2]| {
            numbered.begin(now_ms);
            let input = wanted.map(|key| numbered.number(key)).to_vec();
            numbered.finish(now_ms + 100);
            input
        };
        for (name, now_ms, wanted, input) in [
            ("from the start", 0, ["a", "b"], vec![Some(5), Some(6)]),
            (
                "one stays, one comes",
                10,
                ["b", "c"],
                vec![Some(6), Some(7)],
            ),
            ("none is left", 20, ["b", "d"], vec![Some(6), None]),
            (
                "the first has rested",
                110,
                ["b", "d"],
                vec![Some(6), Some(5)],
            ),
            ("the next one too", 120, ["e", "d"], vec![Some(7), Some(5)]),
        ] {
            let found: Vec<Option<u32>> = at(now_ms, wanted);
            assert_eq!(found, input, "{name}");
        }
    }
}
