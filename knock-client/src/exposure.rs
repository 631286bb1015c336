//! Warns of files with secrets that other users of this machine can read.

use std::path::Path;

/// Returns a warning if other users can read or change a file with `what` in it: the rule of ssh for
/// private keys. None if the file can't be looked at, which is reported where it is read.
#[cfg(unix)]
pub(crate) fn warning(path: &Path, what: &str) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;

    const OF_OTHERS: u32 = 0o077;
    let found = std::fs::metadata(path).ok()?;
    // A pipe or a terminal, as in --otp <(pass knock), keeps nothing.
    if !found.is_file() || found.mode() & OF_OTHERS == 0 {
        return None;
    }
    let shown = path.display();
    let mode = found.mode() & 0o777;
    Some(format!(
        "other users of this machine may use {shown}, which has {what} (mode {mode:03o}): chmod 600 {shown}"
    ))
}

/// Returns no warning: files have other permissions on this system.
#[cfg(not(unix))]
pub(crate) fn warning(_: &Path, _: &str) -> Option<String> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_that_others_can_use_is_warned_of() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        fs::write(&path, "").expect("a file");
        for (mode, is_exposed) in [
            (0o600, false),
            (0o400, false),
            (0o640, true),
            (0o604, true),
            (0o620, true),
            (0o610, true),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
            let found = warning(&path, "a private key");
            assert_eq!(found.is_some(), is_exposed, "mode {mode:o}: {found:?}");
        }
        assert_eq!(warning(directory.path(), "nothing"), None, "a directory");
        assert_eq!(warning(&path.join("none"), "nothing"), None, "no file");
    }
}
