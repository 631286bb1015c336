//! A configuration without errors.

use std::sync::Arc;

use super::places::FileLines;
use crate::{
    compile::Conflict,
    fleet::Keyring,
    model::{problem::Problems, settings::Settings, sources::Sources},
};

/// A configuration without errors, with the lines of its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The settings that the file gives.
    pub settings: Settings,
    /// The files, as the user named the first one.
    pub file: Sources,
    /// A hash of the text; none if the text did not come from a file that can be read again.
    pub digest: Option<u64>,
    /// The keys of the group; none without `[fleet]`, or if files were not read.
    pub keyring: Option<Keyring>,
    /// The text itself.
    pub text: Arc<str>,
    pub(super) places: FileLines,
}

impl Checked {
    /// Turns conflicts into problems with line numbers.
    pub fn problems(&self, conflicts: Vec<Conflict>) -> Problems {
        Problems {
            file: self.file.clone(),
            list: conflicts
                .into_iter()
                .map(|conflict| self.places.problem(conflict))
                .collect(),
        }
    }
}
