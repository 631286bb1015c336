//! Reads files whole and replaces them in one step.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use knock_sequence::one_time::FILE_MOST;

use crate::host::files;

const OWNER_ONLY: u32 = 0o600;
/// Permission of others to read, and to write.
const READ_BY_ALL: u32 = 0o004;
const WRITTEN_BY_ALL: u32 = 0o002;
/// Any permission of the group.
const BY_GROUP: u32 = 0o070;
/// The sticky bit of a directory: only its owner may replace a file.
const STICKY: u32 = 0o1000;

/// Returns the bytes of a file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let length = files::open_regular(path, "it is not a file")?
        .take(FILE_MOST + 1)
        .read_to_end(&mut text)?;
    if length as u64 > FILE_MOST {
        let problem = format!("it is longer than {} MiB", FILE_MOST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(text)
}

/// Describes what other users may do with a file, and how to prevent it.
pub fn exposure(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode();
    let shown = path.display();
    if mode & (READ_BY_ALL | WRITTEN_BY_ALL) != 0 {
        let what = match mode & WRITTEN_BY_ALL {
            0 => "read",
            _ => "change",
        };
        return Some(format!(
            "every user of this host may {what} {shown}, which is all that it takes to get in: \
             chmod 600 {shown}"
        ));
    }
    let directory = real(path).ok()?.parent()?.to_owned();
    let mode = fs::metadata(&directory).ok()?.mode();
    let is_open = mode & WRITTEN_BY_ALL != 0 && mode & STICKY == 0;
    is_open.then(|| {
        let directory = directory.display();
        format!("every user of this host may replace {shown}: chmod o-w {directory}")
    })
}

/// Replaces the content of a file, completely or not at all, and syncs it to disk.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_in_steps(path, bytes, |_| Ok(()))
}

/// The steps of a replacement, so that tests can stop in between.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WriteStep {
    Made,
    Written,
    Owned,
    Synced,
    Renamed,
}

pub(super) fn replace_in_steps(
    path: &Path,
    bytes: &[u8],
    mut done: impl FnMut(WriteStep) -> io::Result<()>,
) -> io::Result<()> {
    let file = real(path)?;
    let (name, mut new) = make(&file)?;
    done(WriteStep::Made)?;
    let written = new
        .write_all(bytes)
        .and_then(|()| done(WriteStep::Written))
        .and_then(|()| keep_owner_and_mode(&file, &name))
        .and_then(|()| done(WriteStep::Owned))
        .and_then(|()| new.sync_all());
    if let Err(error) = written {
        // A file that is left behind is overwritten next time.
        let _stays = fs::remove_file(&name);
        return Err(error);
    }
    done(WriteStep::Synced)?;
    fs::rename(&name, &file)?;
    done(WriteStep::Renamed)?;
    sync_directory(&file)
}

/// Creates or replaces a file that only its owner may read, as [`replace`] does.
pub(super) fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let (name, mut new) = make(file)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&name, file)?;
    sync_directory(file)
}

/// Checks that the file can be replaced, by doing the first steps and undoing them.
pub(super) fn try_to_replace(path: &Path) -> io::Result<()> {
    let file = real(path)?;
    let (name, _) = make(&file)?;
    let kept = keep_owner_and_mode(&file, &name);
    fs::remove_file(&name)?;
    kept?;
    sync_directory(&file)
}

/// Resolves links, so that the file is replaced and not a link to it.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// Returns the path of a hidden file beside one: `.once.new` beside `once`.
pub(super) fn hidden(file: &Path, end: &str) -> io::Result<PathBuf> {
    let unnamed = || io::Error::other("it has no name");
    let mut name = OsString::from(".");
    name.push(file.file_name().ok_or_else(unnamed)?);
    name.push(end);
    Ok(file.with_file_name(name))
}

/// Creates the new file beside the old one. Its name is always the same, so at most one is left
/// behind.
fn make(file: &Path) -> io::Result<(PathBuf, File)> {
    let name = hidden(file, ".new")?;
    match fs::remove_file(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let new = options
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(&name)?;
    Ok((name, new))
}

fn keep_owner_and_mode(old: &Path, new: &Path) -> io::Result<()> {
    let old = fs::metadata(old)?;
    let made = fs::metadata(new)?;
    if made.uid() != old.uid() {
        chown(new, Some(old.uid()), None)?;
    }
    if made.gid() != old.gid() {
        let kept = chown(new, None, Some(old.gid()));
        // A group without permissions need not be kept.
        if old.mode() & BY_GROUP != 0 {
            kept?;
        }
    }
    fs::set_permissions(new, fs::Permissions::from_mode(old.mode() & 0o777))
}

/// Syncs the directory: otherwise the new name may be lost with the power.
fn sync_directory(file: &Path) -> io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}
