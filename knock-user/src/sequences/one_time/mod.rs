//! Reads files of one-time sequences, and marks used lines.
//!
//! ```text
//! file ─▶ disk (read) ─▶ OneTimeText (lines) ─▶ OneTimeFile: current lines ─▶ automaton
//!   ▲                                        │ this line was used
//!   └── disk (replace, at once, fsync) ◀─────┘
//! ```
//!
//! [`knock_sequence::one_time`] defines the format. When a line was used, it and all lines before
//! it are marked: a client that tried those without effect has shown them to eavesdroppers.

mod disk;
mod live;
mod mark;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use self::disk::exposure;
use knock_sequence::{Knock, one_time::OneTimeText};

use crate::host::os_error;

/// A sequence that is accepted now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Current {
    /// Its id in the kernel.
    pub sequence_id: u32,
    /// The sequence.
    pub knocks: Vec<Knock>,
}

/// The state of a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileState {
    /// The last line that was used since the file was opened.
    pub used: Option<u32>,
    /// The next line; none if the file can't be used.
    pub next: Option<u32>,
    /// The number of unused sequences.
    pub left: usize,
    /// The reason why the door can't be opened.
    pub failure: Option<String>,
}

/// A reason why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OneTimeError {
    /// It can't be read.
    #[error("cannot read {}: {}; {}", path.display(), os_error::plain(cause), reading_cure(path, cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// Used lines can't be marked.
    #[error(
        "cannot mark used lines in {}: {}; the file and its directory must belong to the user \
         that runs knock-user, as after `{}`",
        path.display(), os_error::plain(cause), ownership_cure(path)
    )]
    Unmarkable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// Another program changed it.
    #[error(
        "line {line} of {} was used, but has another content now: restore the file, then \
         reload",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The line that was used.
        line: u32,
    },
    /// All sequences are used.
    #[error(
        "no sequence is left in {}: make a new file with `knock-user generate --one-time`, for both \
         sides, and reload",
        path.display()
    )]
    Exhausted {
        /// The file.
        path: PathBuf,
    },
}

/// Where a one-time file and its directory belong to the daemon.
const PLACE: &str = "/var/lib/knock";

/// Returns how a file becomes readable.
fn reading_cure(path: &Path, cause: &io::Error) -> String {
    if cause.kind() == io::ErrorKind::NotFound {
        return "correct the path, which is relative to the directory of the configuration, or make \
                the file with `knock-user generate --one-time`"
            .to_owned();
    }
    format!(
        "it must belong to the user that runs knock-user, as after `{}`",
        ownership_cure(path)
    )
}

/// Returns the command after which a file belongs to this user.
fn ownership_cure(path: &Path) -> String {
    let (user, shown) = (current_user(), path.display());
    if path.parent() == Some(Path::new(PLACE)) {
        return format!("sudo chown {user} {PLACE} {shown}");
    }
    let name = path.file_name().unwrap_or_default();
    let target = Path::new(PLACE).join(name);
    format!(
        "sudo install -D -m 600 -o {user} {shown} {}",
        target.display()
    )
}

/// Returns the name of the user to whom a file has to belong.
fn current_user() -> String {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

/// Reads a file. `refuses` returns why a well-formed line can't be a sequence of its door.
///
/// # Errors
/// It can't be read.
pub fn inspect(
    path: &Path,
    refuses: impl FnMut(&[Knock]) -> Option<String>,
) -> Result<OneTimeText, OneTimeError> {
    let text = disk::read(path).map_err(|cause| OneTimeError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    let mut one_time_text = OneTimeText::new(text);
    one_time_text.refuse(refuses);
    Ok(one_time_text)
}

/// Creates or replaces a file that only its owner may read, completely or not at all, and syncs it
/// to disk.
///
/// # Errors
/// The system refuses.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    disk::write(path, bytes)
}

/// A file of one-time sequences, and its accepted lines.
#[derive(Debug)]
pub struct OneTimeFile {
    /// The configured path.
    path: PathBuf,
    lookahead: u16,
    /// The number under which the kernel records used sequences.
    replay_domain: u32,
    one_time_text: OneTimeText,
    /// A used line that is not marked on disk yet.
    unmarked: Option<u32>,
    /// The last line that was marked since the file was opened.
    used: Option<u32>,
    failure: Option<OneTimeError>,
    /// Whether no sequence is accepted any more.
    is_withdrawn: bool,
}

impl OneTimeFile {
    /// Reads a file as [`inspect`] does; `lookahead` lines are accepted at a time.
    ///
    /// Call it after dropping capabilities: it checks what the process may do from then on.
    pub fn open(
        path: &Path,
        lookahead: u16,
        refuses: impl FnMut(&[Knock]) -> Option<String>,
    ) -> Self {
        let mut file = Self {
            path: path.to_owned(),
            lookahead,
            replay_domain: mark::replay_domain(
                &disk::real(path).unwrap_or_else(|_| path.to_owned()),
            ),
            one_time_text: OneTimeText::default(),
            unmarked: None,
            used: None,
            failure: None,
            is_withdrawn: false,
        };
        file.failure = file.read(refuses).err();
        file
    }

    fn read(
        &mut self,
        refuses: impl FnMut(&[Knock]) -> Option<String>,
    ) -> Result<(), OneTimeError> {
        self.one_time_text = inspect(&self.path, refuses)?;
        // A failure now is better than one after a grant was given.
        disk::try_to_replace(&self.path).map_err(|cause| self.unmarkable(cause))?;
        let unmarkable = |cause| self.unmarkable(cause);
        let boot = live::boot().map_err(unmarkable)?;
        let lost = live::lost(&self.path, &boot, &self.one_time_text).map_err(unmarkable)?;
        if let Some(marked) = lost.and_then(|line| self.one_time_text.marked(line)) {
            disk::replace(&self.path, marked.text()).map_err(unmarkable)?;
            self.one_time_text = marked;
            tracing::warn!(
                "{}: the host went down while the lines up to {} were accepted, and their use was not \
                 recorded: they are void",
                self.path.display(),
                lost.unwrap_or_default()
            );
        }
        self.record_accepted()
    }

    /// Records the accepted lines on disk before they can be used.
    fn record_accepted(&self) -> Result<(), OneTimeError> {
        self.not_exhausted()?;
        let (line, knocks) = self
            .one_time_text
            .unused()
            .take(self.lookahead.into())
            .last()
            .unwrap_or_default();
        live::boot()
            .and_then(|boot| live::write(&self.path, &boot, line, knocks))
            .map_err(|cause| self.unmarkable(cause))
    }

    /// Stops accepting sequences.
    pub const fn withdraw(&mut self) {
        self.is_withdrawn = true;
    }

    /// Removes the record of accepted lines, once all used ones are marked: the others then stay
    /// valid if the host goes down.
    pub fn close(&self) {
        if self.is_withdrawn && self.unmarked.is_none() {
            // A record that stays voids unused lines at the next boot.
            let _result = live::remove(&self.path);
        }
    }

    /// Returns the configured path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number under which used sequences are recorded: the same for all doors that have
    /// this file.
    pub const fn replay_domain(&self) -> u32 {
        self.replay_domain
    }

    /// Returns the sequence with this id, if the file has it.
    pub fn sequence(&self, sequence_id: u32) -> Option<&[Knock]> {
        self.one_time_text
            .sequence(mark::line_of(&self.one_time_text, sequence_id)?)
    }

    /// Returns the accepted sequences; none if the file can't be used.
    pub fn current(&self) -> Vec<Current> {
        if self.failure.is_some() || self.is_withdrawn {
            return Vec::new();
        }
        self.one_time_text
            .unused()
            .take(self.lookahead.into())
            .map(|(line, knocks)| Current {
                sequence_id: mark::sequence_id(line, knocks),
                knocks: knocks.to_vec(),
            })
            .collect()
    }

    /// Returns the state of the file.
    pub fn state(&self) -> FileState {
        let next = self.one_time_text.unused().next();
        FileState {
            used: self.used,
            next: next
                .filter(|_| self.failure.is_none())
                .map(|(line, _)| line),
            left: self.one_time_text.unused().count(),
            failure: self.failure.as_ref().map(ToString::to_string),
        }
    }

    /// Marks the line with this id and all lines before it as used.
    ///
    /// On success the mark is on disk. After an error it is not, and no sequence is accepted until
    /// another call succeeds. Nothing changes if the line is marked already or no longer in the
    /// file.
    ///
    /// # Errors
    /// The line can't be marked.
    pub fn mark_used(&mut self, sequence_id: u32) -> Result<(), &OneTimeError> {
        let Some(line) = mark::line_of(&self.one_time_text, sequence_id) else {
            return Ok(());
        };
        if self.unmarked.is_none() && self.one_time_text.is_marked(line) {
            return Ok(());
        }
        let line = self.unmarked.map_or(line, |unmarked| unmarked.max(line));
        self.unmarked = Some(line);
        self.failure = self.mark(line).err();
        match &self.failure {
            None => {}
            // No line is accepted any more, and all used ones are marked.
            Some(OneTimeError::Exhausted { .. }) => {
                let _result = live::remove(&self.path);
            }
            Some(_) => return self.failure.as_ref().map_or(Ok(()), Err),
        }
        self.unmarked = None;
        self.used = self.used.max(Some(line));
        Ok(())
    }

    fn mark(&mut self, line: u32) -> Result<(), OneTimeError> {
        // Lines that were added meanwhile are kept.
        let text = disk::read(&self.path).map_err(|cause| self.unreadable(cause))?;
        let mut found = OneTimeText::new(text);
        if found.sequence(line).is_none()
            || found.sequence(line) != self.one_time_text.sequence(line)
        {
            return Err(OneTimeError::Changed {
                path: self.path.clone(),
                line,
            });
        }
        found.restrict_to(&self.one_time_text);
        if let Some(marked) = found.marked(line) {
            disk::replace(&self.path, marked.text()).map_err(|cause| self.unmarkable(cause))?;
            found = marked;
        }
        self.one_time_text = found;
        self.record_accepted()
    }

    fn not_exhausted(&self) -> Result<(), OneTimeError> {
        match self.one_time_text.unused().next() {
            Some(_) => Ok(()),
            None => Err(OneTimeError::Exhausted {
                path: self.path.clone(),
            }),
        }
    }

    fn unreadable(&self, cause: io::Error) -> OneTimeError {
        OneTimeError::Unreadable {
            path: self.path.clone(),
            cause,
        }
    }

    fn unmarkable(&self, cause: io::Error) -> OneTimeError {
        OneTimeError::Unmarkable {
            path: self.path.clone(),
            cause,
        }
    }
}

#[cfg(test)]
mod tests;
