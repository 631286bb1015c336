//! Records on disk, beside the file, which lines are accepted. The record is written before they are accepted, and
//! removed afterwards.
//!
//! A reboot loses the record of the kernel. If the host went down while lines were accepted, it is
//! unknown whether they were used, and they are void.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use knock_sequence::{Knock, one_time::OneTimeText};

use super::disk;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the id of this boot of the host.
pub(super) fn boot() -> io::Result<String> {
    fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned())
}

/// Records that this line and those before it are accepted.
pub(super) fn write(path: &Path, boot: &str, line: u32, knocks: &[Knock]) -> io::Result<()> {
    let text = format!("{boot} {line} {}\n", words(knocks));
    disk::write(&beside(path)?, text.as_bytes())
}

/// Removes the record: no line is accepted any more.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(beside(path)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns the last line that was accepted when the host went down, if the file still has it.
pub(super) fn lost(
    path: &Path,
    boot: &str,
    one_time_text: &OneTimeText,
) -> io::Result<Option<u32>> {
    let text = match disk::read(&beside(path)?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let text = String::from_utf8_lossy(&text);
    let mut fields = text.trim_end().splitn(3, ' ');
    let mut field = || fields.next().unwrap_or_default();
    let (then, line, knocks) = (field(), field(), field());
    // Another file may have replaced it meanwhile.
    let line = line.parse().ok().filter(|_| then != boot);
    Ok(line.filter(|&line| {
        one_time_text
            .sequence(line)
            .is_some_and(|found| words(found) == knocks)
    }))
}

fn words(knocks: &[Knock]) -> String {
    let words: Vec<String> = knocks.iter().map(ToString::to_string).collect();
    words.join(" ")
}

/// Returns the path of the record: `.once.live` beside `once`.
fn beside(path: &Path) -> io::Result<PathBuf> {
    disk::hidden(&disk::real(path)?, ".live")
}
