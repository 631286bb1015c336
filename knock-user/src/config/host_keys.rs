//! Reads the files with the host's private keys, and derives the keys that clients share with it.

use std::{
    collections::HashMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use knock_sequence::spa::{KeyError, PairKeys, PrivateKey, PublicKey, WeakKey, read_private_key};

use super::{checked::Checked, fwknop, reader::ReadFile, shared_keys};
use crate::model::problem::{Problem, Problems};
use crate::{
    host::{files, os_error},
    model::spa::HostKeyPairs,
};

/// The keys of a host and its clients, by both public keys.
type Pairs = HashMap<(PublicKey, PublicKey), PairKeys>;

/// The keys of the configuration that was read last: deriving one takes 40 µs, so a reload derives
/// only new ones.
static LAST: Mutex<Option<Pairs>> = Mutex::new(None);

/// Reads the files with keys, and adds a problem for each file without a usable one. Returns the
/// keys of the host, the current one first. Without users no key is needed.
pub(super) fn read(read: &mut ReadFile, problems: &mut Vec<Problem>) -> Vec<PrivateKey> {
    let ReadFile {
        settings, places, ..
    } = read;
    let mut keys = Vec::new();
    if let Some(spa) = settings.spa().filter(|_| settings.has_user_keys()) {
        for (key, path) in spa.files() {
            let line = places.of_spa(key);
            let is_refused = |problem: &Problem| problem.line == line && problem.key == key;
            // The path is the default one then.
            if line.is_some() && problems.iter().any(is_refused) {
                continue;
            }
            let cure = match key {
                "old_key" => "name the file of the previous key, or remove old_key".to_owned(),
                _ => format!(
                    "make the host's key with `knock-user keygen --out {}`",
                    path.display()
                ),
            };
            match read_key(path, &cure) {
                Ok(read) => keys.push(read),
                Err(reason) => problems.push(Problem {
                    line,
                    key: key.to_owned(),
                    reason,
                }),
            }
        }
    }
    for (index, user) in settings.users.iter_mut().enumerate() {
        let Some(fwknop) = &mut user.fwknop else {
            continue;
        };
        match fwknop::read_keys(&fwknop.file) {
            Ok(keys) => fwknop.keys = Some(keys),
            Err(reason) => problems.push(Problem {
                line: places.of_user(index, "fwknop"),
                key: "fwknop".to_owned(),
                reason,
            }),
        }
    }
    problems.extend(shared_keys::find(settings, places));
    keys
}

impl Checked {
    /// Derives the keys of the users with these keys of the host, the current one first.
    ///
    /// # Errors
    /// Returns a problem for each key that can't be used.
    pub fn with_keys(mut self, keys: Vec<PrivateKey>) -> Result<Self, Problems> {
        let mut list = Vec::new();
        if let [new, old] = keys.as_slice()
            && new.public() == old.public()
        {
            let reason = "it is the same key as in key: name the file of the previous key, or \
                          remove old_key";
            list.push(Problem {
                line: self.places.of_spa("old_key"),
                key: "old_key".to_owned(),
                reason: reason.to_owned(),
            });
        }
        let mut host_keys: Vec<_> = keys
            .into_iter()
            .map(|key| HostKeyPairs {
                key,
                pairs: HashMap::new(),
            })
            .collect();
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.take().unwrap_or_default();
        let mut pairs = Pairs::new();
        for (index, user) in self.settings.users.iter().enumerate() {
            for (place, own) in user.keys.iter().enumerate() {
                let mut reasons = Vec::new();
                for host_key in &mut host_keys {
                    match shared(&host_key.key, &own.key, &before) {
                        Ok(pair) => {
                            let both = (*host_key.key.public(), own.key);
                            pairs.insert(both, pair.clone());
                            host_key.pairs.insert(own.key, pair);
                        }
                        Err(reason) => reasons.push(reason),
                    }
                }
                list.extend(reasons.into_iter().next().map(|reason| Problem {
                    line: self.places.of_key(index, place),
                    key: "keys".to_owned(),
                    reason,
                }));
            }
        }
        *last = Some(pairs);
        if !list.is_empty() {
            list.sort();
            return Err(Problems {
                file: self.file,
                list,
            });
        }
        if let Some(spa) = &mut self.settings.spa {
            spa.host_keys = host_keys;
        }
        Ok(self)
    }

    /// Returns the files of host keys that have changed since they were read, each with the reason
    /// why it can't be compared, if it can't.
    pub fn other_host_keys(&self) -> Vec<(PathBuf, Option<String>)> {
        let spa = self.settings.spa().into_iter();
        let pairs = spa.flat_map(|spa| spa.files().zip(&spa.host_keys));
        pairs
            .filter_map(|((_, path), in_force)| match read_key(path, RESTORE) {
                Ok(key) if key.public() == in_force.key.public() => None,
                Ok(_) => Some((path.to_owned(), None)),
                Err(reason) => Some((path.to_owned(), Some(reason))),
            })
            .collect()
    }
}

/// Returns the keys that a client shares with a host.
///
/// # Errors
/// No client can have such a key.
fn shared(host: &PrivateKey, client: &PublicKey, known: &Pairs) -> Result<PairKeys, String> {
    if host.public() == client {
        let reason = "this is the key of this host: write the public key of the client, which \
                      `knock-client keygen` prints there";
        return Err(reason.to_owned());
    }
    match known.get(&(*host.public(), *client)) {
        Some(pair) => Ok(pair.clone()),
        None => PairKeys::of_host(host, client).map_err(|weak: WeakKey| weak.to_string()),
    }
}

/// What to do if the file of a key that is in force is gone.
const RESTORE: &str = "restore it, or a reload and a restart fail";

/// Reads a private key; `cure` is what to do if there is no file.
///
/// # Errors
/// Returns the reason with the name of the file and the cure.
fn read_key(path: &Path, cure: &str) -> Result<PrivateKey, String> {
    let shown = path.display();
    let otherwise = "it is not a regular file: a reload reads the key again, so write it to a file";
    let read = files::open_regular(path, otherwise)
        .map_err(KeyError::from)
        .and_then(read_private_key);
    read.map_err(|error| match error {
        KeyError::Unreadable(error) if error.kind() == ErrorKind::NotFound => {
            format!("there is no file {shown}: {cure}")
        }
        KeyError::Unreadable(error) => {
            let reason = os_error::reason_of_named(&error, &shown.to_string());
            format!("{shown} can't be read: {reason}")
        }
        KeyError::Bad(reason) => format!("{shown}: {reason}"),
    })
}
