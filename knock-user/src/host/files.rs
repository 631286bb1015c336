//! Opens files that other users may name or replace.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt as _, path::Path};

/// Opens a regular file without blocking; `otherwise` is the error for any other kind of file.
pub(crate) fn open_regular(path: &Path, otherwise: &str) -> io::Result<File> {
    // Opening a pipe without a writer would block.
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
