//! Warns of patterns that match no file, and of files of a configuration that every user of the host can use.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, path::Path};

use super::Advice;
use crate::{config::include, host::files};

const READ_BY_ALL: u32 = 0o004;
const WRITTEN_BY_ALL: u32 = 0o002;
/// In a directory with this bit, only the owner of a file removes it.
const STICKY: u32 = 0o1000;

impl Advice<'_> {
    /// Warns of patterns that no file matches: what such files would close is open.
    pub(super) fn unmatched(&mut self) {
        let checked = self.checked;
        for pattern in include::unmatched(&checked.places.include, &checked.text) {
            let directory = match Path::new(checked.file.main()).parent() {
                Some(directory) if !directory.as_os_str().is_empty() => {
                    directory.display().to_string()
                }
                Some(_) | None => "the working directory".to_owned(),
            };
            let reason = format!(
                "no file matches {pattern:?}, so it includes nothing: names are relative to {directory}"
            );
            self.of_file("include", reason);
        }
    }

    /// Warns of files and directories that others can change, and of knocks that they can read.
    pub(super) fn files(&mut self) {
        let checked = self.checked;
        for (line, file) in checked.file.files() {
            let mode = mode_for_all(Path::new(file));
            if mode & WRITTEN_BY_ALL != 0 {
                let reason = format!(
                    "every user of this host can change {file}, and with the next reload open every \
                     port and run commands: chmod o-w {file}"
                );
                self.add(Some(line), "", reason);
            }
            if mode & READ_BY_ALL != 0
                && let Some(door) = self.first_sequence(file)
            {
                let reason = format!(
                    "every user of this host can read the knocks in {file}: chmod 600 {file}, or \
                     chgrp knock {file} && chmod 640 {file} for the service"
                );
                self.of_door(door, "knock", reason);
            }
        }
        self.directories();
    }

    /// Returns the first door in a file whose knocks are written there.
    fn first_sequence(&self, file: &str) -> Option<usize> {
        let mut doors = self.settings().doors.iter().enumerate();
        let (index, _) = doors.find(|(index, door)| {
            let line = self.checked.places.of_door(*index, "knock");
            !door.knock.is_empty()
                && line.is_some_and(|line| self.checked.file.find(line).0 == file)
        })?;
        Some(index)
    }

    fn directories(&mut self) {
        let checked = self.checked;
        let directory = |file: &Path| match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".").to_owned()),
            parent => parent.map(Path::to_owned),
        };
        let main = directory(Path::new(checked.file.main())).unwrap_or_default();
        let patterns = include::patterns_among(&checked.places.include);
        let searched: BTreeSet<_> = patterns
            .filter_map(|pattern| directory(&main.join(pattern)))
            .collect();
        let files = checked.file.files();
        let mut all = searched.clone();
        all.extend(files.filter_map(|(_, file)| directory(Path::new(file))));
        for directory in all {
            let mode = mode_for_all(&directory);
            let is_open = searched.contains(&directory) || mode & STICKY == 0;
            if mode & WRITTEN_BY_ALL != 0 && is_open {
                let shown = directory.display();
                let reason = format!(
                    "every user of this host can write files in {shown}, and with the next reload open \
                     every port and run commands: chmod o-w {shown}"
                );
                self.add(None, "", reason);
            }
        }
    }
}

/// Returns the mode of a file or directory; 0 if others can't reach it.
fn mode_for_all(path: &Path) -> u32 {
    let found = fs::metadata(path).ok();
    let found = found.filter(|_| files::is_reached_by_all(path));
    found.map_or(0, |found| found.mode())
}
