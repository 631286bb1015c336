//! Texts of system errors: without their numbers, and for files with the cure.

use std::io::{self, ErrorKind};

/// Returns the reason that the system gives, without its number: `permission denied`.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match (error.raw_os_error(), text.rsplit_once(" (os error ")) {
        (Some(_), Some((reason, _))) => reason,
        _ => return text,
    };
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Cures for a file that can't be read or written.
const CURES: [(ErrorKind, &str); 7] = [
    (
        ErrorKind::PermissionDenied,
        "`ls -l` shows who may; choose a file that this user may use",
    ),
    (
        ErrorKind::NotFound,
        "check the path: a relative one starts at the current directory",
    ),
    (
        ErrorKind::IsADirectory,
        "it is a directory: name a file in it",
    ),
    (
        ErrorKind::NotADirectory,
        "a part of the path is not a directory",
    ),
    (ErrorKind::StorageFull, "make room on the disk"),
    (ErrorKind::QuotaExceeded, "make room on the disk"),
    (ErrorKind::ReadOnlyFilesystem, "it is mounted read-only"),
];

/// Returns why a file could not be read or written, and the cure.
pub(crate) fn of_file(error: &io::Error) -> String {
    let cure = CURES.iter().find(|(kind, _)| *kind == error.kind());
    match cure {
        Some((_, cure)) => format!("{}; {cure}", plain(error)),
        None => plain(error),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_no_number() {
        for (name, error, expected) in [
            (
                "a file of another user",
                io::Error::from_raw_os_error(13),
                "permission denied; `ls -l` shows who may; choose a file that this user may use",
            ),
            (
                "no cure",
                io::Error::from_raw_os_error(5),
                "input/output error",
            ),
            (
                "not of the system",
                io::Error::other("It is not a secret"),
                "It is not a secret",
            ),
        ] {
            assert_eq!(of_file(&error), expected, "{name}");
        }
    }
}
