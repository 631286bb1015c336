//! The file with this client's private key.

use crate::{home, refused};
use knock_sequence::Invalid;
use knock_sequence::spa::{KeyError, NoRandomness, PrivateKey, PublicKey, read_private_key};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Why a key can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no file.
    #[error(
        "there is no key {0}: make one with `knock-client keygen --out {0}`, or name another file with --key",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It can't be read.
    #[error("cannot read the key {}: {}", path.display(), refused::of_file(cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Its text is not a private key.
    #[error("{}: {reason}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: Invalid,
    },
    /// The file for a new key exists already.
    #[error(
        "{} exists and is kept: print its public key with --public, or write another key with --out FILE",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It can't be written.
    #[error("cannot write the key {}: {}", path.display(), refused::of_file(cause))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The file system has no files of users.
    #[error("no file can be created in {}: name a file in another directory", directory.display())]
    NoFiles {
        /// The directory.
        directory: PathBuf,
    },
    /// No key can be drawn.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// This user has no home directory.
    #[error("this user has no home directory: name the file of the key")]
    NoHome,
}

/// Returns the default file: `key` beside the file of profiles.
///
/// # Errors
///
/// This user has no home directory.
pub fn default_path() -> Result<PathBuf, KeyFileError> {
    home::config_file("key").ok_or(KeyFileError::NoHome)
}

/// Reads the key in a file.
///
/// # Errors
///
/// The file can't be read or has no key. No error shows any of its text.
pub fn read(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let file = File::open(path).map_err(KeyError::from);
    file.and_then(read_private_key).map_err(|error| {
        let path = path.to_owned();
        match error {
            KeyError::Unreadable(cause) if cause.kind() == ErrorKind::NotFound => {
                KeyFileError::Missing { path }
            }
            KeyError::Unreadable(cause) => KeyFileError::Unreadable { path, cause },
            KeyError::Bad(reason) => KeyFileError::Bad { path, reason },
        }
    })
}

/// Generates a key and writes it to a new file that only this user can read.
///
/// Creates the directory of the file if there is none.
///
/// # Errors
///
/// The file exists, or can't be written.
pub fn create(path: &Path) -> Result<PublicKey, KeyFileError> {
    let key = PrivateKey::generate()?;
    store(path, &key)?;
    Ok(*key.public())
}

/// Writes a key to a new file that only this user can read.
///
/// Creates the directory of the file if there is none.
///
/// # Errors
///
/// The file exists, or can't be written.
pub fn store(path: &Path, key: &PrivateKey) -> Result<(), KeyFileError> {
    let unwritable = |cause| KeyFileError::Unwritable {
        path: path.to_owned(),
        cause,
    };
    let exists = || KeyFileError::Exists {
        path: path.to_owned(),
    };
    if path.is_dir() {
        return Err(unwritable(ErrorKind::IsADirectory.into()));
    }
    // A dangling link counts as a file, too.
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let directory = match path.parent() {
        None => return Err(unwritable(ErrorKind::IsADirectory.into())),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    fs::create_dir_all(directory).map_err(unwritable)?;
    // The file gets its name once it is complete, so a full disk leaves no partial key.
    let made = tempfile::NamedTempFile::new_in(directory);
    let mut file = made.map_err(|error| {
        // The directory exists, so its file system takes no new files, as /proc.
        if error.kind() == ErrorKind::NotFound {
            let directory = directory.to_owned();
            return KeyFileError::NoFiles { directory };
        }
        // Without the name of the temporary file.
        unwritable(error.kind().into())
    })?;
    file.write_all(key.line().as_bytes()).map_err(unwritable)?;
    file.as_file().sync_all().map_err(unwritable)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Err(exists()),
        Err(error) => Err(unwritable(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_once_and_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new/place/key");
        let public = create(&path).expect("a key");
        assert_eq!(read(&path).expect("the key").public(), &public);
        let text = fs::read_to_string(&path).expect("the file");
        assert!(matches!(create(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(fs::read_to_string(&path).expect("the file"), text);
        let files = fs::read_dir(path.parent().expect("a directory")).expect("files");
        assert_eq!(files.count(), 1, "no temporary file is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).expect("the file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn errors_name_the_file_and_the_cure() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let error = |path: &Path| {
            let error = read(path).expect_err("no key").to_string();
            error.replace(&directory.path().display().to_string(), "DIR")
        };
        assert!(error(&path).starts_with("there is no key DIR/key: make one"));
        fs::write(&path, "ERERER\n").expect("a file");
        assert!(error(&path).starts_with("DIR/key: not a private key: "));
        assert!(!error(&path).contains("ERER"));
        let directory = create(directory.path()).expect_err("a directory is not a file");
        assert!(
            directory
                .to_string()
                .ends_with("it is a directory: name a file in it"),
            "{directory}"
        );
        let below = create(&path.join("key")).expect_err("a file is not a directory");
        assert!(
            below.to_string().starts_with("cannot write the key "),
            "{below}"
        );
    }
}
