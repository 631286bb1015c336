//! Why a profile can't be shared or added.

use crate::refused;
use std::io;
use std::path::PathBuf;

/// Why a profile can't be shared or added.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The profile has what opens the door.
    #[error(
        "the knocks of [profile.{name}] are its secret: give --with-secret to put them into the URI"
    )]
    Secret {
        /// The profile.
        name: String,
    },
    /// The profile needs a file that both sides must agree on.
    #[error("[profile.{name}] opens by {method}, which no URI has: copy the file and the profile")]
    File {
        /// The profile.
        name: String,
        /// The means that open the door.
        method: String,
    },
    /// The name is not one for a URI and a file.
    #[error(
        "{name:?} can't be shared: name the profile with letters, digits, dots, dashes and underscores"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The text is not a URI of this program.
    #[error("this is not a URI of `knock-client share`: {reason}")]
    Uri {
        /// The reason.
        reason: String,
    },
    /// There is such a profile already.
    #[error("{} has [profile.{name}] already: choose another name with --name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The file of profiles can't be written.
    #[error("cannot write {}: {}", path.display(), refused::of_file(cause))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}
