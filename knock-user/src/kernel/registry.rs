//! The record of an instance besides its pins: a file that a reboot removes together with them.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    compile::stable_ids::StableIds,
    host::private_files,
    model::{attach_mode::AttachMode, settings::Mode},
};

/// The facts that a process needs to take over an instance.
///
/// It is written before its program is attached, so the entries that this program writes into the
/// pinned maps can always be interpreted.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Registry {
    /// The interfaces that are protected or waited for.
    pub interfaces: Vec<String>,
    /// The path of the configuration.
    pub config: PathBuf,
    /// Whether the program drops nothing.
    pub dry_run: bool,
    /// The configured attach mode.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// The end of the trial, in milliseconds since boot; none without a trial.
    pub confirm_by_ms: Option<u64>,
    /// The numbers of names in the maps: those of the attached configuration, and of the previous
    /// one as long as any of its entries may be left.
    pub numbers: StableIds,
    /// The ports that each door opens or closes, by its name.
    pub ports: BTreeMap<String, Vec<String>>,
    /// The ports that are protected.
    #[serde(default)]
    pub protected: Vec<String>,
    /// The work that needs a running process, one sentence each.
    #[serde(default)]
    pub needs_process: Vec<String>,
    /// The digest of the text of the configuration; none if it was not a file.
    #[serde(default)]
    pub config_digest: Option<u64>,
    /// How long a TCP connection without packets is kept, in milliseconds; 0 if connections are not
    /// kept.
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
    /// The ids of the loaded copies of the program of this configuration; empty if an older version
    /// wrote this.
    #[serde(default)]
    pub programs: Vec<u32>,
    /// The previous configuration until this one is committed, which is when it is attached and, if
    /// on trial, confirmed. None also if nothing was in force.
    #[serde(default)]
    pub fallback: Option<Box<Fallback>>,
    /// The digest of the last text on trial that was not confirmed: a restart does not put it in
    /// force.
    #[serde(default)]
    pub rejected: Option<u64>,
    /// The keys of tables whose sizes do not follow the memory of the machine: they are configured, or were when the
    /// tables were made.
    #[serde(default)]
    pub limited: Vec<String>,
    /// Why `auto` chose the modes of interfaces, by configured name, where the driver does not run the program.
    #[serde(default)]
    pub chosen: BTreeMap<String, ModeReason>,
}

/// The reason for which `auto` chose the mode of an interface.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ModeReason {
    /// The word for the mode.
    pub mode: String,
    /// The reason, in words that follow `because`.
    pub because: String,
}

impl ModeReason {
    /// Returns whether it is the reason for this mode.
    pub fn is_for(&self, mode: AttachMode) -> bool {
        self.mode == mode.name()
    }
}

/// The configuration before a change.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fallback {
    /// Its registry. Its program is the pinned one.
    pub registry: Registry,
    /// The numbers of the interfaces that it was attached to.
    pub indices: Vec<u32>,
}

impl Registry {
    /// Returns how long a connection without packets is kept, in milliseconds, by index of the
    /// protocol.
    pub const fn idle_ms(&self) -> [u64; 2] {
        [self.flow_idle_ms, self.flow_idle_udp_ms]
    }

    /// Returns whether a program is known to belong to another configuration.
    pub fn is_foreign(&self, program: u32) -> bool {
        !self.programs.is_empty() && !self.programs.contains(&program)
    }

    /// Returns whether this configuration is on trial.
    pub const fn is_on_trial(&self) -> bool {
        self.confirm_by_ms.is_some()
    }

    /// Reads a registry; `None` if there is none.
    ///
    /// # Errors
    /// The file can't be read or parsed.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        let registry = serde_json::from_slice(&text);
        registry.with_context(|| format!("parsing {}", path.display()))
    }

    /// Replaces the file in one step: a reader finds the old registry or the new one.
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
    fn a_registry_survives_writing_and_reading() {
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
