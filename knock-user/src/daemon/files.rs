//! Follows changing sequences, and reports changes of their files to people and clients.

use std::{io::Write, mem};

use super::state::{Daemon, Files};
use crate::{
    host::{clock, os_error},
    sequences::one_time::Standing,
};

impl<W: Write> Daemon<W> {
    /// Retires used sequences, and loads the next ones.
    pub(super) fn follow_sequences(&mut self) {
        // The thread that prepares a configuration reads the same files. Sequences used since then
        // must stay in the kernel's replay cache until that configuration is in force and has retired
        // them itself.
        if self.making.is_some() {
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
        let standings = self.protection.files();
        let doors = &self.plan.settings().doors;
        let files: Files = standings
            .into_iter()
            .filter_map(|(index, standing)| Some((doors.get(index)?.name.clone(), standing)))
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

    /// Forgets the files of the previous configuration and follows those of the one in force.
    pub(super) fn reopen_files(&mut self) {
        self.files.clear();
        self.next_line.listen(self.plan.settings().next_line);
        self.metrics.listen(self.plan.settings().metrics);
        // Sequences may have been used while the files were read.
        self.follow_sequences();
    }
}
