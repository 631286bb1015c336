//! The error of the compiler.

/// Something that the tables can't hold, or that the kernel side could not distinguish.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Conflict {
    /// The index of the door that it concerns, if any.
    pub door: Option<usize>,
    /// The key that it concerns.
    pub key: &'static str,
    /// The reason why it is wrong, and the form to write instead.
    pub reason: String,
}

impl Conflict {
    pub(super) fn of_door(door: usize, key: &'static str, reason: String) -> Self {
        Self {
            door: Some(door),
            key,
            reason,
        }
    }

    pub(super) fn of_file(key: &'static str, reason: String) -> Self {
        Self {
            door: None,
            key,
            reason,
        }
    }
}
