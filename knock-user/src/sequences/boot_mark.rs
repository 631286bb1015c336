//! Marks a boot in which SPA packets may have been used, apart from the file that has their stamps.
//!
//! The mark is in `/run/knock`. Anyone who removes the file or the pinned maps does not remove it, so
//! the next start does not take their absence for a host on which nothing was used yet.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::stamp_file::LossMoment;
use crate::host::{paths::RUN, private_files};

const FILE: &str = "spa-boot.json";

/// The content of the mark.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct BootMark {
    /// The boot in which an instance with users started last.
    pub(super) boot: String,
    /// When it became unknown which stamps were used before, if that was in this boot.
    pub(super) lost: Option<LossMoment>,
}

impl BootMark {
    /// Reads the mark of a boot; none if no instance with users has started in it.
    ///
    /// A mark that can't be parsed counts as one of this boot.
    pub(super) fn read(boot: &str) -> Option<Self> {
        Self::read_from(&Path::new(RUN).join(FILE), boot)
    }

    fn read_from(path: &Path, boot: &str) -> Option<Self> {
        let text = fs::read(path).ok()?;
        let mark = serde_json::from_slice(&text).unwrap_or_else(|_| Self {
            boot: boot.to_owned(),
            lost: None,
        });
        (mark.boot == boot).then_some(mark)
    }

    /// Replaces the mark.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn write(&self) -> Result<()> {
        let path = Path::new(RUN).join(FILE);
        let text = serde_json::to_vec(self).context("writing the mark of this boot")?;
        private_files::directory(Path::new(RUN))
            .and_then(|()| private_files::replace(&path, &text))
            .with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_in_its_boot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(BootMark::read_from(&path, "this"), None, "no mark");
        let lost = LossMoment {
            boot: "this".to_owned(),
            boot_ms: 7,
        };
        let mark = BootMark {
            boot: "this".to_owned(),
            lost: Some(lost),
        };
        fs::write(&path, serde_json::to_vec(&mark).unwrap()).unwrap();
        assert_eq!(BootMark::read_from(&path, "this"), Some(mark));
        assert_eq!(BootMark::read_from(&path, "another"), None);
        for text in ["", "{", "[]"] {
            fs::write(&path, text).unwrap();
            let read = BootMark::read_from(&path, "this");
            assert_eq!(
                read.map(|mark| mark.boot).as_deref(),
                Some("this"),
                "{text:?}"
            );
        }
    }
}
