//! Paths of the pins and files of an instance. Only the process that has locked an instance may change
//! it.
//!
//! ```text
//! /sys/fs/bpf/knock/4/eth0@ns1/            layout version, first interface, network namespace
//!     maps/ALLOW …                         maps that all configurations share
//!     links/eth0 …                         links that keep the program attached
//!     barriers/2 …                         barriers, by interface number
//!     program program-tc …                 the programs of the last committed configuration, one of a kind
//!     next next-tc …                       the programs of a configuration that is not committed yet
//!     ports                                the port table of the committed program, in case the registry is lost
//! /run/knock/eth0@ns1.json                 the registry
//!                    .settled .next        the texts of these configurations
//!                    .lock .sock           the lock of the daemon, and its control socket
//! ```
//!
//! The number of a network namespace is its cookie, which the kernel gives to no other one until
//! the next boot.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use knock_common::layout;

use crate::{
    host::paths::RUN,
    kernel::{bpffs::DIRECTORY as PINS, entry::Entry, registry::Registry},
};

/// A set of interfaces that is protected together.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Instance {
    /// `eth0@ns1`.
    pub(super) name: String,
    /// The version of the map layout that its pins have.
    pub(super) layout: String,
}

impl Instance {
    /// Returns the instance with a name, whether or not it has pins and files.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            layout: layout::VERSION.to_string(),
        }
    }

    /// Returns the interfaces that the instance protects or waits for.
    pub fn interfaces(&self) -> Vec<String> {
        let mut all = self.linked();
        if let Ok(Some(registry)) = Registry::read(&self.registry()) {
            all.extend(registry.interfaces);
        }
        all.sort();
        all.dedup();
        all
    }

    /// Returns the interfaces that have a pinned link, attached or left over.
    pub fn linked(&self) -> Vec<String> {
        names_in(&self.links())
            .unwrap_or_default()
            .iter()
            .map(|name| unescaped(name))
            .collect()
    }

    /// Returns its name: the first interface that it was created with, and the network namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the directory of its pins.
    pub fn pins(&self) -> PathBuf {
        Path::new(PINS).join(&self.layout).join(&self.name)
    }

    /// Returns the directory of its pinned maps.
    pub fn maps(&self) -> PathBuf {
        self.pins().join("maps")
    }

    /// Returns the directory of its pinned links.
    pub fn links(&self) -> PathBuf {
        self.pins().join("links")
    }

    /// Returns the path of the pinned link to an interface.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.links().join(escaped(interface))
    }

    /// Returns the directory of its pinned barriers.
    pub fn barriers(&self) -> PathBuf {
        self.pins().join("barriers")
    }

    /// Returns the path of the pinned barrier of the interface with this number.
    pub fn barrier(&self, index: u32) -> PathBuf {
        self.barriers().join(index.to_string())
    }

    /// Returns the path of a pinned program.
    pub fn program(&self, entry: Entry) -> PathBuf {
        self.pins().join(format!("program{}", entry.suffix()))
    }

    /// Returns the path of a pinned program that replaces the current one when its configuration
    /// is committed.
    pub fn next_program(&self, entry: Entry) -> PathBuf {
        self.pins().join(format!("next{}", entry.suffix()))
    }

    /// Returns whether a program of the last committed configuration is pinned.
    pub fn has_program(&self) -> bool {
        Entry::ALL.iter().any(|entry| self.program(*entry).exists())
    }

    /// Returns the path of the pinned port table, which shows the closed ports if the registry
    /// can't be read.
    pub fn ports(&self) -> PathBuf {
        self.pins().join("ports")
    }

    /// Returns the path of its registry.
    pub fn registry(&self) -> PathBuf {
        self.run("json")
    }

    /// Returns the path of the text of the last committed configuration; see
    /// [`crate::apply::texts`].
    pub(crate) fn settled_text(&self) -> PathBuf {
        self.run("settled")
    }

    /// Returns the path of the text of the configuration that is being put in force, or is on
    /// trial.
    pub(crate) fn next_text(&self) -> PathBuf {
        self.run("next")
    }

    /// Returns the path of its control socket.
    pub fn socket(&self) -> PathBuf {
        self.run("sock")
    }

    pub(super) fn run(&self, extension: &str) -> PathBuf {
        Path::new(RUN).join(format!("{}.{extension}", self.name))
    }

    /// Returns the path of its lock file.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.run("lock")
    }
}

/// Escapes dots, which bpffs reserves.
pub(super) fn escaped(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn unescaped(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

/// Returns the names in a directory; none if it does not exist.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading {}", directory.display()))?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        name.with_context(|| format!("reading {}", directory.display()))
    };
    entries.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_survive_bpffs() {
        for name in ["eth0", "eth0.100", "br%2e", "a%b.c", "wg-0"] {
            let escaped = escaped(name);
            assert!(!escaped.contains('.'), "{name}");
            assert_eq!(unescaped(&escaped), name);
        }
    }
}
