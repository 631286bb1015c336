//! Files of sequences that work once each.
//!
//! ```text
//! file ─▶ disk (read) ─▶ Book (lines) ─▶ OneTimeFile: which now? ─▶ automaton
//!   ▲                                        │ this one was used
//!   └── disk (replace, at once, fsync) ◀─────┘
//! ```
//!
//! [`knock_sequence::one_time`] has the format. When a line has been used, it and all lines before it
//! are marked: who knocked those in vain has shown them to whoever listened.

mod disk;
mod live;
mod mark;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use self::disk::exposure;
use knock_sequence::{Knock, one_time::Book};

use crate::host::os_error;

/// A sequence that works now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Current {
    /// What it goes by in the kernel.
    pub sequence_id: u32,
    /// The sequence.
    pub knocks: Vec<Knock>,
}

/// How it is with a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// The last line that was used while it was open.
    pub used: Option<u32>,
    /// The line that is next; none if the file is of no use.
    pub next: Option<u32>,
    /// How many sequences are left.
    pub left: usize,
    /// Why nobody can open the door.
    pub failure: Option<String>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum OneTimeError {
    /// It can't be read.
    #[error(
        "cannot read {}: {}; it must belong to who runs knock-user, as after `sudo install -D \
         -m 600 -o {} {} /var/lib/knock/once`",
        path.display(), os_error::plain(cause), whoever(), path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What is used can't be marked.
    #[error(
        "cannot mark what is used in {}: {}; the file and its directory must belong to who \
         runs knock-user, as after `sudo install -D -m 600 -o {} {} /var/lib/knock/once`",
        path.display(), os_error::plain(cause), whoever(), path.display()
    )]
    Unmarkable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Somebody else changed it.
    #[error(
        "line {line} of {} was used, and is another one now: reload, when the file is as it should \
         be",
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

/// The user that a file has to belong to.
fn whoever() -> String {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

/// Reads a file without asking for more. What can't be a sequence of its door for another reason
/// than its form, `refuses` says.
///
/// # Errors
/// It can't be read.
pub fn inspect(
    path: &Path,
    refuses: impl FnMut(&[Knock]) -> Option<String>,
) -> Result<Book, OneTimeError> {
    let text = disk::read(path).map_err(|cause| OneTimeError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    let mut book = Book::new(text);
    book.refuse(refuses);
    Ok(book)
}

/// Makes or replaces a file that only its owner may read, at once or not at all, and on the disk.
///
/// # Errors
/// The system refuses.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    disk::write(path, bytes)
}

/// A file, and what of it works now.
#[derive(Debug)]
pub struct OneTimeFile {
    /// As it was named.
    path: PathBuf,
    lookahead: u16,
    /// Under which number it is noted in the kernel what was used.
    replay_domain: u32,
    book: Book,
    /// A line that was used and is not marked on the disk.
    owed: Option<u32>,
    /// The last line that was marked since it was opened.
    used: Option<u32>,
    failure: Option<OneTimeError>,
    /// Whether no sequence is to work any more.
    is_withdrawn: bool,
}

impl OneTimeFile {
    /// Reads a file as [`inspect`] does, of which so many sequences are to work at a time.
    ///
    /// This takes what the process may do now: call it when it has given up what it does not need.
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
            book: Book::default(),
            owed: None,
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
        self.book = inspect(&self.path, refuses)?;
        // Better now than when it has let somebody in.
        disk::try_to_replace(&self.path).map_err(|cause| self.unmarkable(cause))?;
        let unmarkable = |cause| self.unmarkable(cause);
        let boot = live::boot().map_err(unmarkable)?;
        let lost = live::lost(&self.path, &boot, &self.book).map_err(unmarkable)?;
        if let Some(marked) = lost.and_then(|line| self.book.marked(line)) {
            disk::replace(&self.path, marked.text()).map_err(unmarkable)?;
            self.book = marked;
            tracing::warn!(
                "{}: the host went down while the lines up to {} could be used and nobody could \
                 note it: they are void",
                self.path.display(),
                lost.unwrap_or_default()
            );
        }
        self.announce()
    }

    /// Before anybody can use them.
    fn announce(&self) -> Result<(), OneTimeError> {
        self.not_exhausted()?;
        let current = self.book.unused().take(self.lookahead.into()).last();
        let (line, knocks) = current.unwrap_or_default();
        let written = live::boot().and_then(|boot| live::write(&self.path, &boot, line, knocks));
        written.map_err(|cause| self.unmarkable(cause))
    }

    /// From now on no sequence works.
    pub const fn withdraw(&mut self) {
        self.is_withdrawn = true;
    }

    /// Nobody has used a sequence since it was withdrawn, or it is marked. If the host goes down now,
    /// the others are as good as ever.
    pub fn close(&self) {
        if self.is_withdrawn && self.owed.is_none() {
            // What stays makes lines void after the next boot that need not be.
            let _stays = live::remove(&self.path);
        }
    }

    /// As it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Under which number it is noted that one of its sequences was used: the same for all doors
    /// that have this file.
    pub const fn replay_domain(&self) -> u32 {
        self.replay_domain
    }

    /// The sequence that goes by this mark, if the file has it.
    pub fn sequence(&self, sequence_id: u32) -> Option<&[Knock]> {
        self.book.sequence(mark::line_of(&self.book, sequence_id)?)
    }

    /// The sequences that work now; none if the file is of no use.
    pub fn current(&self) -> Vec<Current> {
        if self.failure.is_some() || self.is_withdrawn {
            return Vec::new();
        }
        let sequences = self.book.unused().take(self.lookahead.into());
        sequences
            .map(|(line, knocks)| Current {
                sequence_id: mark::sequence_id(line, knocks),
                knocks: knocks.to_vec(),
            })
            .collect()
    }

    /// How it is with the file.
    pub fn standing(&self) -> Standing {
        let next = self.book.unused().next();
        Standing {
            used: self.used,
            next: next
                .filter(|_| self.failure.is_none())
                .map(|(line, _)| line),
            left: self.book.unused().count(),
            failure: self.failure.as_ref().map(ToString::to_string),
        }
    }

    /// What goes by this mark was used: its line and all before it work no more.
    ///
    /// When this returns without an error, that is on the disk, whatever happens then. With an error
    /// it is not, and until the same again has put it there no sequence works. To mark what is
    /// marked, or what the file has no more, changes nothing.
    ///
    /// # Errors
    /// What was used can't be marked.
    pub fn mark_used(&mut self, sequence_id: u32) -> Result<(), &OneTimeError> {
        let Some(line) = mark::line_of(&self.book, sequence_id) else {
            return Ok(());
        };
        if self.owed.is_none() && self.book.is_marked(line) {
            return Ok(());
        }
        let line = self.owed.map_or(line, |owed| owed.max(line));
        self.owed = Some(line);
        self.failure = self.mark(line).err();
        match &self.failure {
            None => {}
            // Nothing is listened to, and what was is marked.
            Some(OneTimeError::Exhausted { .. }) => {
                let _stays = live::remove(&self.path);
            }
            Some(_) => return self.failure.as_ref().map_or(Ok(()), Err),
        }
        self.owed = None;
        self.used = self.used.max(Some(line));
        Ok(())
    }

    fn mark(&mut self, line: u32) -> Result<(), OneTimeError> {
        // What somebody added meanwhile is kept.
        let text = disk::read(&self.path).map_err(|cause| self.unreadable(cause))?;
        let mut found = Book::new(text);
        if found.sequence(line).is_none() || found.sequence(line) != self.book.sequence(line) {
            return Err(OneTimeError::Changed {
                path: self.path.clone(),
                line,
            });
        }
        found.restrict_to(&self.book);
        if let Some(marked) = found.marked(line) {
            disk::replace(&self.path, marked.text()).map_err(|cause| self.unmarkable(cause))?;
            found = marked;
        }
        self.book = found;
        self.announce()
    }

    fn not_exhausted(&self) -> Result<(), OneTimeError> {
        match self.book.unused().next() {
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
