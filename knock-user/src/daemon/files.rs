//! What people and clients are told of the files of one-time sequences.

use std::{collections::BTreeMap, io::Write, mem};

use super::Daemon;
use crate::{host::clock, sequences::one_time::Standing};

/// How it is with the files, by the names of their doors.
pub(crate) type Files = BTreeMap<String, Standing>;

impl<W: Write> Daemon<W> {
    /// Tells what has changed with the files, and clients which lines are next.
    pub(super) fn report_files(&mut self) {
        let standings = self.protection.files();
        let doors = &self.plan.settings().doors;
        let files: Files = standings
            .into_iter()
            .filter_map(|(place, standing)| Some((doors.get(place)?.name.clone(), standing)))
            .collect();
        let next = files.iter();
        let next = next.map(|(door, standing)| (door.clone(), standing.next));
        self.next_line.set_lines(next.collect());
        let before = mem::take(&mut self.files);
        let at_ns = clock::boot_ns();
        for (door, standing) in &files {
            let none = Standing::default();
            let before = before.get(door).unwrap_or(&none);
            if let Some(line) = standing.used.filter(|_| standing.used != before.used) {
                self.console.used(door, line, standing.left, at_ns);
            }
            if standing.failure != before.failure {
                let because = standing.failure.as_deref();
                self.console.usable(door, because, at_ns);
            }
        }
        self.files = files;
    }

    /// Another configuration is in place, which opened its files anew.
    pub(super) fn reopen_files(&mut self) {
        self.files.clear();
        self.next_line.listen(self.plan.settings().next_line);
        // Also what was used while they were read.
        self.follow_sequences();
    }
}
