//! Follows changing sequences, and reports changes of their files to people and clients.

use std::{io::Write, mem};

use super::state::{Daemon, Files};
use crate::{
    host::{clock, os_error},
    sequences::one_time::FileState,
};

impl<W: Write> Daemon<W> {
    /// Retires used sequences, and loads the next ones.
    pub(super) fn follow_sequences(&mut self) {
        // The thread that prepares a configuration reads the same files. Sequences used since then
        // must stay in the kernel's replay cache until that configuration is in force and has retired
        // them itself.
        if self.pending.is_some() {
            return;
        }
        if let Err(error) = self.protection.follow_sequences(&self.plan) {
            tracing::warn!("{}", os_error::describe(&error));
        }
        self.report_files();
    }

    /// Removes all one-time sequences from the kernel.
    pub(super) fn withdraw_sequences(&mut self) {
        if let Err(error) = self.protection.withdraw_sequences(&self.plan) {
            tracing::warn!("{}", os_error::describe(&error));
        }
        self.report_files();
    }

    /// Reports changes of the files, and publishes the numbers of the next lines to clients.
    pub(super) fn report_files(&mut self) {
        let states = self.protection.files();
        let doors = &self.plan.settings().doors;
        let files: Files = states
            .into_iter()
            .filter_map(|(index, state)| Some((doors.get(index)?.name.clone(), state)))
            .collect();
        let next = files.iter();
        let next = next.map(|(door, state)| (door.clone(), state.next));
        self.next_line.set_lines(next.collect());
        let before = mem::take(&mut self.files);
        let at_ns = clock::boot_ns();
        for (door, state) in &files {
            let none = FileState::default();
            let before = before.get(door).unwrap_or(&none);
            if let Some(line) = state.used.filter(|_| state.used != before.used) {
                self.console.used(door, line, state.left, at_ns);
            }
            if state.failure != before.failure {
                let because = state.failure.as_deref();
                self.console.usable(door, because, at_ns);
            }
        }
        self.files = files;
    }

    /// Forgets the files of the previous configuration and follows those of the one in force.
    pub(super) fn reopen_files(&mut self) {
        self.files.clear();
        self.next_line.listen(self.plan.settings().next_line);
        self.metrics.listen(self.plan.settings().metrics);
        // Sequences may have been used while the files were read.
        self.follow_sequences();
    }
}
