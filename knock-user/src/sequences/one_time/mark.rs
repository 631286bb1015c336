//! Computes the numbers by which the kernel side identifies files and lines.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use knock_sequence::{
    Knock,
    one_time::{OneTimeText, SEQUENCES_MOST},
};

/// How many bits of an id are the line number. The others are a hash of the line.
const LINE_BITS: u32 = 20;
const _: () = assert!(SEQUENCES_MOST < 1 << LINE_BITS);

/// Returns the number of a file.
pub(super) fn replay_domain(path: &Path) -> u32 {
    fnv(path.as_os_str().as_bytes().iter().copied())
}

/// Returns the id of a line. Records in the kernel outlive the process, so the id of a line is
/// stable, and differs for a line of another file in the same place.
pub(super) fn sequence_id(line: u32, knocks: &[Knock]) -> u32 {
    let bytes = knocks.iter().flat_map(|knock| {
        let [high, low] = knock.port.to_be_bytes();
        [knock.protocol as u8, high, low]
    });
    let hash = fnv(bytes);
    (hash ^ hash >> 16) << LINE_BITS | line
}

/// Computes FNV-1a.
fn fnv(bytes: impl Iterator<Item = u8>) -> u32 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    bytes.fold(BASIS, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    })
}

/// Returns the line with this id; none if another sequence is there now.
pub(super) fn line_of(one_time_text: &OneTimeText, sequence_id: u32) -> Option<u32> {
    let line = sequence_id & ((1 << LINE_BITS) - 1);
    let knocks = one_time_text.sequence(line)?;
    (self::sequence_id(line, knocks) == sequence_id).then_some(line)
}
