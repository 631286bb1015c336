//! Reads whole files of bounded size.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use crate::host::files;

/// Twice the size of a file with 10 000 doors of 128 knocks; bounds the reading of `/dev/zero`.
pub(super) const FILE_MAX: u64 = 32 << 20;

/// Reads a whole file of at most [`FILE_MAX`] bytes that can be read again.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let reason = "it is not a regular file, and a pipe can be read only once: write the \
                  configuration to a file and start with that";
    text_of(files::open_regular(path, reason)?)
}

/// Reads a whole file of at most [`FILE_MAX`] bytes.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    text_of(File::open(path)?)
}

/// Reads a whole file of at most [`FILE_MAX`] bytes, in any encoding.
pub(crate) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    bytes_of(File::open(path)?)
}

fn text_of(file: File) -> io::Result<String> {
    String::from_utf8(bytes_of(file)?).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let problem = format!("line {line} is not UTF-8: save the file in that encoding");
        io::Error::new(io::ErrorKind::InvalidData, problem)
    })
}

fn bytes_of(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if length as u64 > FILE_MAX {
        let problem = format!("it is longer than {} MiB", FILE_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}
