//! The numbers by which the kernel side knows files and their lines.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use knock_sequence::{
    Knock,
    one_time::{Book, SEQUENCES_MOST},
};

/// Bits of a mark that are the number of a line. The others are of what stands there.
const LINE_BITS: u32 = 20;
const _: () = assert!(SEQUENCES_MOST < 1 << LINE_BITS);

/// A number for a file.
pub(super) fn replay_domain(path: &Path) -> u32 {
    fnv(path.as_os_str().as_bytes().iter().copied())
}

/// What a line goes by in the kernel. Notes of it outlive the process, so it stays the same; and it
/// is another one if another file is put in the place of this one.
pub(super) fn sequence_id(line: u32, knocks: &[Knock]) -> u32 {
    let bytes = knocks.iter().flat_map(|knock| {
        let [high, low] = knock.port.to_be_bytes();
        [knock.protocol as u8, high, low]
    });
    let hash = fnv(bytes);
    (hash ^ hash >> 16) << LINE_BITS | line
}

/// FNV-1a.
fn fnv(bytes: impl Iterator<Item = u8>) -> u32 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    bytes.fold(BASIS, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    })
}

/// The line that goes by this in the kernel; none if another sequence stands there now.
pub(super) fn line_of(book: &Book, sequence_id: u32) -> Option<u32> {
    let line = sequence_id & ((1 << LINE_BITS) - 1);
    let knocks = book.sequence(line)?;
    (self::sequence_id(line, knocks) == sequence_id).then_some(line)
}
