//! The file in which a daemon keeps what it has to know of a group after a restart.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::saved::LONGEST_STATE;
use crate::host::private_files;

/// Replaces the file, completely or not at all.
///
/// # Errors
/// The system refuses; the old file is unchanged.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    private_files::replace(path, text.as_bytes())
}

/// Reads the file; none if there is none.
///
/// # Errors
/// It can't be read, is no text or has more than 16 MiB.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(LONGEST_STATE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_STATE {
        return Err(io::Error::other("it has more than 16 MiB"));
    }
    Ok(Some(text))
}

/// Renames a file that can't be used, so that it can be looked at; returns its new name. An older one is
/// replaced.
///
/// # Errors
/// The system refuses.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    let name = PathBuf::from(name);
    fs::rename(path, &name)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_read_and_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet-web");
        assert_eq!(read(&path).unwrap(), None);
        for text in ["one\n", "two\n"] {
            write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(text));
        }
        for (name, content) in [
            ("binary", vec![0xff; 9]),
            ("long", vec![b'a'; (16 << 20) + 1]),
        ] {
            fs::write(&path, content).unwrap();
            assert!(read(&path).is_err(), "{name}");
        }
        let aside = set_aside(&path).unwrap();
        assert_eq!(aside.file_name().unwrap(), "fleet-web.damaged");
        assert_eq!(read(&path).unwrap(), None);
        assert!(aside.exists());
    }
}
