//! What is known about an instance besides its pins: a file that dies with them at a reboot.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{compile::stable_ids::StableIds, host::private_files, model::settings::Mode};

/// What whoever takes an instance over has to know.
///
/// It is written before the program that needs it is attached, so what a program writes into the
/// pinned maps can always be understood.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Registry {
    /// The interfaces that are protected or waited for.
    pub interfaces: Vec<String>,
    /// The configuration.
    pub config: PathBuf,
    /// Whether nothing is dropped.
    pub dry_run: bool,
    /// How the program was to be attached.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Until when a confirmation is waited for, in milliseconds since boot.
    pub confirm_by_ms: Option<u64>,
    /// What stands under which number in the maps: of the configuration that is attached, and of
    /// the one before as long as anything of it may be left.
    pub numbers: StableIds,
    /// The ports that each door opens or closes, by its name.
    pub ports: BTreeMap<String, Vec<String>>,
    /// The ports that are protected.
    #[serde(default)]
    pub protected: Vec<String>,
    /// What is not done while no process runs, a sentence each.
    #[serde(default)]
    pub needs_process: Vec<String>,
    /// Of the text of the configuration; none if it was not a file.
    #[serde(default)]
    pub config_digest: Option<u64>,
    /// How long a TCP connection without packets is kept, in milliseconds; 0 if none is.
    #[serde(default)]
    pub flow_idle_ms: u64,
    /// The same for UDP.
    #[serde(default)]
    pub flow_idle_udp_ms: u64,
    /// The inode number of the network namespace, which shows whether that still exists.
    #[serde(default)]
    pub namespace: Option<u64>,
    /// The digest of the text of the configuration, from wherever it was read; see
    /// [`crate::apply::texts`]. None if an older version wrote this.
    #[serde(default)]
    pub text: Option<u64>,
    /// The kernel's ids of the loaded copies of the program that has this configuration; empty if
    /// an older version wrote this.
    #[serde(default)]
    pub programs: Vec<u32>,
    /// What was in force before, until this configuration is settled: it is attached, and confirmed
    /// if it was on trial. None also where nothing was in force.
    #[serde(default)]
    pub fallback: Option<Box<Fallback>>,
    /// The digest of the text that was on trial last, if nobody confirmed it: a restart does not put
    /// it in force.
    #[serde(default)]
    pub rejected: Option<u64>,
}

/// What was in force before a change.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fallback {
    /// What is known about it. Its program is the one that is pinned.
    pub registry: Registry,
    /// The numbers of the interfaces that it was attached to.
    pub indices: Vec<u32>,
}

impl Registry {
    /// How long a connection without packets is kept, in milliseconds, by number of the protocol.
    pub const fn idle_ms(&self) -> [u64; 2] {
        [self.flow_idle_ms, self.flow_idle_udp_ms]
    }

    /// Whether a program is known to have another configuration than this one.
    pub fn is_foreign(&self, program: u32) -> bool {
        !self.programs.is_empty() && !self.programs.contains(&program)
    }

    /// Whether this configuration awaits its confirmation.
    pub const fn is_on_trial(&self) -> bool {
        self.confirm_by_ms.is_some()
    }

    /// Reads a registry; `None` if there is none.
    ///
    /// # Errors
    /// The file can't be read or understood.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        let registry = serde_json::from_slice(&text);
        registry.with_context(|| format!("understanding {}", path.display()))
    }

    /// Writes it in one step: a reader finds the old one or the new one.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("writing the registry")?;
        private_files::replace(path, &text).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eth0@1.json");
        assert_eq!(Registry::read(&path).unwrap(), None);
        let registry = Registry {
            interfaces: vec!["eth0".into()],
            confirm_by_ms: Some(7),
            fallback: Some(Box::new(Fallback {
                indices: vec![2],
                ..Fallback::default()
            })),
            ..Registry::default()
        };
        registry.write(&path).unwrap();
        assert_eq!(Registry::read(&path).unwrap(), Some(registry));
        fs::write(&path, "{").unwrap();
        let error = Registry::read(&path).unwrap_err().to_string();
        assert!(error.contains("eth0@1.json"), "{error}");
    }
}
