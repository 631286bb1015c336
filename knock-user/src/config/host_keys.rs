//! Reads the files with the host's private keys.

use std::path::Path;

use knock_sequence::spa::{KeyError, PairKeys, PrivateKey, PublicKey, read_private_key};

use super::{Checked, Problem, Problems};
use crate::{
    host::{files, os_error},
    model::spa::HostKey,
};

impl Checked {
    /// Reads the host's keys, and checks the users' keys with them. Without users no key is needed.
    ///
    /// # Errors
    /// Returns a problem for each file without a key, and for each key that can't be used.
    pub(super) fn with_host_keys(mut self) -> Result<Self, Problems> {
        let mut list = Vec::new();
        let mut keys = Vec::new();
        if let Some(spa) = self.settings.spa() {
            for (key, path) in spa.files() {
                match read_key(path) {
                    Ok(read) => keys.push((key, HostKey(read))),
                    Err(reason) => list.push(self.of_spa(key, reason)),
                }
            }
            if let [(_, new), (key, old)] = keys.as_slice()
                && new == old
            {
                let reason = "it is the same key as in key: name the file of the previous key, or \
                              remove old_key";
                list.push(self.of_spa(key, reason.to_owned()));
            }
        }
        for (index, user) in self.settings.users.iter().enumerate() {
            for (place, own) in user.keys.iter().enumerate() {
                if let Some(reason) = unusable(&own.key, &keys) {
                    list.push(Problem {
                        line: self.places.of_key(index, place),
                        key: "keys".to_owned(),
                        reason,
                    });
                }
            }
        }
        if !list.is_empty() {
            list.sort();
            return Err(Problems {
                file: self.file,
                list,
            });
        }
        if let Some(spa) = &mut self.settings.spa {
            spa.host_keys = keys.into_iter().map(|(_, key)| key).collect();
        }
        Ok(self)
    }

    fn of_spa(&self, key: &str, reason: String) -> Problem {
        Problem {
            line: self.places.of_spa(key),
            key: key.to_owned(),
            reason,
        }
    }

    /// Returns the files of host keys that have changed since they were read, each with the reason
    /// why it can't be compared, if it can't.
    pub fn other_host_keys(&self) -> Vec<(std::path::PathBuf, Option<String>)> {
        let spa = self.settings.spa().into_iter();
        let pairs = spa.flat_map(|spa| spa.files().zip(&spa.host_keys));
        pairs
            .filter_map(|((_, path), in_force)| match read_key(path) {
                Ok(key) if key.public() == in_force.0.public() => None,
                Ok(_) => Some((path.to_owned(), None)),
                Err(reason) => Some((path.to_owned(), Some(reason))),
            })
            .collect()
    }
}

/// Returns why a client can't have this key.
fn unusable(key: &PublicKey, host_keys: &[(&str, HostKey)]) -> Option<String> {
    for (_, host_key) in host_keys {
        if host_key.0.public() == key {
            return Some(
                "this is the key of this host: write the public key of the client, which \
                 `knock-client keygen` prints there"
                    .to_owned(),
            );
        }
    }
    let (_, first) = host_keys.first()?;
    PairKeys::of_host(&first.0, key)
        .err()
        .map(|weak| weak.to_string())
}

/// Reads a private key.
///
/// # Errors
/// Returns the reason with the name of the file and the cure.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKey, String> {
    let shown = path.display();
    let otherwise = "it is not a regular file: a reload reads the key again, so write it to a file";
    let read = files::open_regular(path, otherwise)
        .map_err(KeyError::from)
        .and_then(read_private_key);
    read.map_err(|error| match error {
        KeyError::Unreadable(error) if error.kind() == std::io::ErrorKind::NotFound => format!(
            "there is no file {shown}: make the host's key with `knock-user keygen --out {shown}`"
        ),
        KeyError::Unreadable(error) => {
            let reason = os_error::reason(&error, &shown.to_string());
            format!("{shown} can't be read: {reason}")
        }
        KeyError::Bad(reason) => format!("{shown}: {reason}"),
    })
}
