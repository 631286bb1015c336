//! The error of every reader in this crate.

/// Why a text is not the value that it should be, and what to write instead.
///
/// Its text quotes what was written, with control characters escaped.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    /// Makes an error of a text that names the value, the reason and what to write instead.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}
