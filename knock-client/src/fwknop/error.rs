//! Why a file of fwknop's client is not converted.

use crate::refused;
use knock_sequence::Invalid;
use std::io;
use std::path::PathBuf;

/// Why a file is not converted.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It can't be read.
    #[error("cannot read {}: {}", path.display(), refused::of_file(cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// This user has no home directory.
    #[error("this user has no home directory: name the file, usually .fwknoprc")]
    NoHome,
    /// It has no stanza with a host.
    #[error(
        "{} has no stanza with SPA_SERVER, so there is no host to send packets to: name another file",
        .0.display()
    )]
    Empty(PathBuf),
    /// A key is wrong.
    #[error("--spa: {0}")]
    Key(Invalid),
    /// A key is for a stanza that does not exist.
    #[error("--spa {stanza}=…: {} has no stanza [{stanza}]; it has {others}", path.display())]
    NoStanza {
        /// The stanza.
        stanza: String,
        /// The file.
        path: PathBuf,
        /// The stanzas that it has.
        others: String,
    },
}
