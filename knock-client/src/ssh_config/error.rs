//! Why ssh can't have a profile.

use std::path::PathBuf;

/// Why ssh's configuration can't have a profile.
#[derive(Debug, thiserror::Error)]
pub enum SshConfigError {
    /// ssh reads the name as several words or as a pattern.
    #[error(
        "ssh can't have a host named {name:?}: name the profile with letters, digits, dots, dashes and underscores"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The path would need quotes within quotes.
    #[error("ssh can't use the path {}: it has quotes, backslashes or line ends; move the file", path.display())]
    Path {
        /// The file.
        path: PathBuf,
    },
}
