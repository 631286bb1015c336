//! Creates and replaces files that no other user may write, whatever the umask is and whatever
//! another user planted in their place.
//!
//! Modes are set explicitly. New files are created with `O_EXCL` and existing ones opened with
//! `O_NOFOLLOW`, so a symbolic link to another file is never followed.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::Path,
};

use nix::{libc, unistd::Uid};

use super::os_error;

/// The owner may read and write, others nothing.
const FILE_MODE: u32 = 0o600;
/// Others may look up names, which clients of a control socket must; only the owner may change
/// them.
const DIRECTORY_MODE: u32 = 0o755;
/// The bits with which the group or others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Creates a directory and its missing parents. Removes the write permission of others from an
/// existing one.
///
/// # Errors
/// It can't be created, is not a directory, is a symbolic link of another user, or stays writable
/// for others.
pub fn directory(path: &Path) -> io::Result<()> {
    let link = match fs::symlink_metadata(path) {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::NotFound => return make(path),
        Err(error) => return Err(error),
    };
    let is_trusted = [0, Uid::effective().as_raw()].contains(&link.uid());
    if link.is_symlink() && !is_trusted {
        return Err(io::Error::other(format!(
            "it is a symbolic link of uid {}: remove it",
            link.uid()
        )));
    }
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::Error::other("it is not a directory: remove it"));
    }
    let mode = found.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !WRITABLE_BY_OTHERS))?;
    }
    Ok(())
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent()
        && !parent.exists()
    {
        make(parent)?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        // Another process created it first.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => directory(path),
        // The umask may have removed required bits.
        made => {
            made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)))
        }
    }
}

/// Opens a file for reading and writing, or creates it; its content stays.
///
/// # Errors
/// It can't be opened, or is a symbolic link, a device or another file's hard link.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(FILE_MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::other("it is a symbolic link: remove it"),
            Some(libc::EISDIR) => io::Error::other("it is a directory: remove it"),
            _ => error,
        })?;
    let found = file.metadata()?;
    if !found.is_file() || found.nlink() > 1 {
        return Err(io::Error::other("it is not a file of its own: remove it"));
    }
    if found.uid() == Uid::effective().as_raw() && found.mode() & 0o7777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Creates a file and writes it to the disk; never touches an existing one.
///
/// # Errors
/// It exists or can't be written; no part of it is left.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    let written = file
        .set_permissions(Permissions::from_mode(FILE_MODE))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _result = fs::remove_file(path);
    }
    written
}

/// Describes why [`create`] did not create a file, with the cure; `option` names another file.
pub fn not_created(path: &Path, error: &io::Error, option: &str) -> String {
    let shown = path.display();
    if error.kind() == ErrorKind::AlreadyExists {
        return format!(
            "{shown} exists, and is not overwritten: name another file with {option}, or remove it"
        );
    }
    if error.kind() != ErrorKind::NotFound {
        let reason = os_error::reason(error, &shown.to_string());
        return format!("{shown} can't be written: {reason}");
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    // Some file systems, such as /proc, take no new files.
    let exists = directory.is_dir();
    let directory = directory.display();
    match exists {
        true => format!(
            "{shown} can't be written: no file can be created in {directory}; name a file in \
             another directory with {option}"
        ),
        false => {
            format!("there is no directory {directory}: create it with `mkdir -p {directory}`")
        }
    }
}

/// Replaces a file in one step: a reader finds the old file or the new one. An existing `FILE.new`
/// is removed and never written to.
///
/// # Errors
/// It can't be written; the old file is unchanged.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&new)?;
    let written = file
        .set_permissions(Permissions::from_mode(FILE_MODE))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _result = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_the_owner_may_write_to_a_directory() {
        let at = tempfile::tempdir().unwrap();
        for (name, before, expected) in [
            ("missing", None, 0o755),
            ("every user writes", Some(0o777), 0o755),
            ("the group writes", Some(0o770), 0o750),
            ("private", Some(0o700), 0o700),
        ] {
            let path = at.path().join(name).join("knock");
            if let Some(mode) = before {
                fs::create_dir_all(&path).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            directory(&path).unwrap();
            assert_eq!(mode(&path), expected, "{name}");
        }
        let file = at.path().join("file");
        fs::write(&file, "").unwrap();
        let error = directory(&file).unwrap_err().to_string();
        assert!(error.contains("not a directory"), "{error}");
    }

    #[test]
    fn links_are_never_followed() {
        let at = tempfile::tempdir().unwrap();
        let victim = at.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for (name, is_hard) in [("symbolic", false), ("hard", true)] {
            let path = at.path().join(name).with_extension("json");
            let plant = |at: &Path| match is_hard {
                true => fs::hard_link(&victim, at).unwrap(),
                false => symlink(&victim, at).unwrap(),
            };
            plant(&path.with_extension("new"));
            plant(&path);
            replace(&path, b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new", "{name}");
            assert!(!path.is_symlink(), "{name}");
            assert_eq!(mode(&path), 0o600, "{name}");

            let lock = at.path().join(name).with_extension("lock");
            plant(&lock);
            let error = open(&lock).unwrap_err().to_string();
            assert!(error.contains("remove it"), "{name}: {error}");
            assert_eq!(fs::read(&victim).unwrap(), b"precious", "{name}");
        }
    }

    #[test]
    fn only_a_regular_file_is_opened() {
        let at = tempfile::tempdir().unwrap();
        let pipe = at.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let error = open(&pipe).unwrap_err().to_string();
        assert!(error.contains("not a file of its own"), "{error}");
        let file = at.path().join("file");
        fs::write(&file, "7\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        open(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        assert_eq!(fs::read(&file).unwrap(), b"7\n", "its text stays");
    }
}
