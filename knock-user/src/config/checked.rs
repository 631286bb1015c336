//! A configuration without errors.

use std::{path::Path, sync::Arc};

use super::places::Places;
use crate::{
    compile::Conflict,
    model::{
        problem::Problems,
        settings::{Dynamic, Settings},
    },
};

/// A configuration without errors, with the lines of its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The settings that the file gives.
    pub settings: Settings,
    /// The file as the user named it.
    pub file: String,
    /// A hash of the text; none if the text did not come from a file that can be read again.
    pub digest: Option<u64>,
    /// The text itself.
    pub text: Arc<str>,
    pub(super) places: Places,
}

impl Checked {
    /// Resolves the paths of other files relative to the directory of the configuration file.
    pub(super) fn relative_to(mut self, file: &Path) -> Self {
        let directory = file.parent().unwrap_or(Path::new(""));
        for door in &mut self.settings.doors {
            if let Some(Dynamic::OneTime(one_time)) = &mut door.dynamic {
                one_time.file = directory.join(&one_time.file);
            }
        }
        if let Some(spa) = &mut self.settings.spa {
            let files = [Some(&mut spa.key), spa.old_key.as_mut()];
            for file in files.into_iter().flatten() {
                *file = directory.join(&*file);
            }
        }
        for fwknop in self
            .settings
            .users
            .iter_mut()
            .filter_map(|user| user.fwknop.as_mut())
        {
            fwknop.file = directory.join(&fwknop.file);
        }
        self
    }

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
