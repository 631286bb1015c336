//! Describes the sequences that an automaton can't hold or distinguish.

use std::collections::{BTreeMap, BTreeSet};

use knock_common::layout::{DOORS_PER_NODE, FIRST_NODES_MAX, NODES_MAX};
use knock_sequence::duration::spell;

use crate::{compile::conflict::Conflict, model::settings::Door};

/// Doors whose sequences an automaton can't distinguish, by index.
#[derive(Default)]
pub(super) struct Ambiguous {
    /// Pairs of doors that need the same `step_timeout`, the later one first, and the number of
    /// shared knocks.
    pub(super) at_odds: BTreeMap<(usize, usize), TimeoutConflict>,
    /// Doors that the same last knock completes: more than a node can hold.
    pub(super) crowded: BTreeSet<Vec<usize>>,
    /// Pairs of doors whose source-bound knocks follow the same knocks.
    pub(super) mixed: BTreeSet<(usize, usize)>,
}

/// How the sequences of two doors with different `step_timeout` overlap.
pub(super) struct TimeoutConflict {
    pub(super) knocks: u8,
    pub(super) overlap: bool,
}

/// Returns the conflict if there are more first knocks or nodes than the maps hold.
pub(super) fn too_large(first_knocks: usize, nodes: usize) -> Option<Conflict> {
    if first_knocks > FIRST_NODES_MAX as usize {
        let reason = format!(
            "{first_knocks} different first knocks are too many: the limit is {FIRST_NODES_MAX}, \
             counted for each target; let doors share first knocks, or use fewer targets"
        );
        return Some(Conflict::of_file("door", reason));
    }
    let most = NODES_MAX as usize - 1;
    if nodes > most {
        let reason = format!(
            "the sequences have {nodes} different beginnings, and the limit is {most}; doors \
             without a target count once more for each target: shorten sequences, or give fewer \
             targets"
        );
        return Some(Conflict::of_file("door", reason));
    }
    None
}

impl Ambiguous {
    /// Returns a conflict for each group of doors.
    pub(super) fn conflicts(&self, doors: &[Door]) -> Vec<Conflict> {
        let name = |index: usize| doors.get(index).map_or("", |door| &door.name);
        let step = |index: usize| {
            let step = doors.get(index).and_then(|door| door.step_timeout);
            step.map_or("none".to_owned(), spell)
        };
        let mut conflicts = Vec::new();
        for (&(later, earlier), odds) in &self.at_odds {
            let how = match (odds.overlap, odds.knocks) {
                (true, knocks) => format!(
                    "the sequence of one contains {knocks} knocks of the \
                     other"
                ),
                (false, 1) => "both sequences begin with the same knock".to_owned(),
                (false, knocks) => format!("both sequences begin with the same {knocks} knocks"),
            };
            conflicts.push(Conflict::of_door(
                later,
                "step_timeout",
                format!(
                    "{}, but {} for door \"{}\", and {how}: use the same step_timeout for both",
                    step(later),
                    step(earlier),
                    name(earlier)
                ),
            ));
        }
        for &(later, earlier) in &self.mixed {
            conflicts.push(Conflict::of_door(
                later,
                "otp",
                format!(
                    "its knocks that do not depend on the source equal those of door \"{}\": use \
                     another secret",
                    name(earlier)
                ),
            ));
        }
        for crowd in &self.crowded {
            let names: Vec<String> = crowd.iter().map(|&d| format!("\"{}\"", name(d))).collect();
            conflicts.push(Conflict::of_door(
                crowd.iter().copied().max().unwrap_or(0),
                "knock",
                format!(
                    "its last knock would complete {} doors at once ({}), and the limit is \
                     {DOORS_PER_NODE}: let fewer sequences end with another one",
                    crowd.len(),
                    names.join(", ")
                ),
            ));
        }
        conflicts
    }
}
