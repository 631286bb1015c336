//! Opening files that somebody else names.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt as _, path::Path};

/// Opens a regular file; `otherwise` is the error for anything else, which is never waited for.
pub(crate) fn open_regular(path: &Path, otherwise: &str) -> io::Result<File> {
    // A pipe that nobody writes to must not be waited for.
    let opened = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path);
    opened.and_then(|file| {
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::other(otherwise))
    })
}
