//! Reads the files with the keys of a group.

use std::{io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

use zeroize::Zeroizing;

use super::reader::ReadFile;
use crate::{
    fleet::{GroupKey, Keyring},
    host::{credentials, files, os_error},
    model::problem::Problem,
};

/// The mode bits of those who must not read a key: its group and others may.
const OTHERS: u32 = 0o077;
/// A key file has less than 200 octets.
const LONGEST: u64 = 4_096;

/// Reads the keys of the group, and adds a problem for each file without a usable one. Returns none
/// without `[fleet]`, or with such a problem.
pub(super) fn read(read: &ReadFile, problems: &mut Vec<Problem>) -> Option<Keyring> {
    let fleet = read.settings.fleet.as_ref()?;
    let line = read.places.fleet.get("seal").copied();
    let before = problems.len();
    let mut add = |reason| {
        problems.push(Problem {
            line,
            key: "seal".to_owned(),
            reason,
        });
    };
    let mut keys = Vec::new();
    for path in &fleet.seal {
        match read_key(path) {
            Ok(key) => keys.push(key),
            Err(reason) => add(reason),
        }
    }
    if keys.len() < fleet.seal.len() {
        debug_assert!(problems.len() > before, "each unusable file is a problem");
        return None;
    }
    Keyring::new(keys)
        .inspect_err(|index| {
            let file = fleet.seal.get(*index).map(|path| path.display().to_string());
            add(format!(
                "{} is the key of another group: name keys of one group, of which the later ones were made by \
                 `knock-user fleet key --renew`",
                file.unwrap_or_default()
            ));
        })
        .ok()
}

/// Reads one file.
///
/// # Errors
/// Returns the reason with the name of the file and the cure; nothing of its text is in it.
pub fn read_key(path: &Path) -> Result<GroupKey, String> {
    let shown = path.display().to_string();
    let otherwise = "it is not a regular file: a reload reads the key again, so write it to a file";
    let unreadable = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return format!(
                "there is no file {shown}: copy that of another host of the group, or make the first one with \
                 `knock-user fleet key --out {shown}`"
            );
        }
        let reason = os_error::reason_of_named(&error, &shown);
        format!("{shown} can't be read: {reason}")
    };
    let file = files::open_regular(path, otherwise).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    // The service manager keeps those of others away from a credential, which it may show as readable for a group.
    if mode & OTHERS != 0 && !credentials::has(path) {
        return Err(format!(
            "{shown} has mode {:04o}, and whoever reads it opens doors at all hosts of the group: chmod 600 {shown}",
            mode & 0o7777
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    GroupKey::parse(&text).map_err(|reason| format!("{shown}: {reason}"))
}
