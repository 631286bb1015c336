//! Finds what an automaton can't hold or distinguish.

use knock_common::layout::{DOORS_PER_NODE, FIRST_NODES_MAX, NODES_MAX};
use knock_sequence::duration::spell;

use super::builder::Builder;
use crate::compile::conflict::Conflict;

impl Builder<'_> {
    pub(super) fn too_large(&self) -> Option<Conflict> {
        let firsts: usize = self.firsts.values().map(Vec::len).sum();
        if firsts > FIRST_NODES_MAX as usize {
            let reason = format!(
                "{firsts} different first knocks are too many: the limit is {FIRST_NODES_MAX}, \
                 counted for each target; let doors share first knocks, or use fewer targets"
            );
            return Some(Conflict::of_file("door", reason));
        }
        let most = NODES_MAX as usize - 1;
        if self.stems.len() > most {
            let reason = format!(
                "the sequences have {} different beginnings, and the limit is {most}; doors \
                 without a target count once more for each target: shorten sequences, or give \
                 fewer targets",
                self.stems.len()
            );
            return Some(Conflict::of_file("door", reason));
        }
        None
    }

    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let name = |index: usize| self.doors.get(index).map_or("", |door| &door.name);
        let step = |index: usize| {
            let step = self.doors.get(index).and_then(|door| door.step_timeout);
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
        for doors in &self.crowded {
            let names: Vec<String> = doors.iter().map(|&d| format!("\"{}\"", name(d))).collect();
            conflicts.push(Conflict::of_door(
                doors.iter().copied().max().unwrap_or(0),
                "knock",
                format!(
                    "its last knock would complete {} doors at once ({}), and the limit is \
                     {DOORS_PER_NODE}: let fewer sequences end with another one",
                    doors.len(),
                    names.join(", ")
                ),
            ));
        }
        conflicts
    }
}
