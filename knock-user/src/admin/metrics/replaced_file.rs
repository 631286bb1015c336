//! A file that is replaced in one step.

use std::{
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Result, anyhow, bail};
use tempfile::NamedTempFile;

use crate::host::os_error;

/// The mode of the file: node_exporter runs as another user.
const FILE_MODE: u32 = 0o644;

/// Replaces a file: a reader finds the old text or the new one, and never a part.
///
/// # Errors
/// There is something else than a regular file, such as a device or a link, which a replacement would destroy; or the
/// directory can't be written.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let shown = path.display();
    let failed = |error: io::Error| {
        anyhow!(
            "{shown} can't be written: {}",
            os_error::reason(&error, &shown.to_string())
        )
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => bail!(
            "{shown} can't be replaced: it is not a regular file; name another one, or leave out --out to print the \
             metrics"
        ),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(_) | Err(_) => {}
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    // The collector skips files that don't end in `.prom`.
    let mut file = NamedTempFile::with_prefix_in(".knock-user.", directory).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let mode = Permissions::from_mode(FILE_MODE);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_file_is_replaced_and_everyone_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("knock.prom");
        for text in ["knock_in_force 1\n", "", "knock_in_force 0\n"] {
            write(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_a_regular_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("old.prom"), "old").unwrap();
        fs::create_dir(at("directory.prom")).unwrap();
        symlink(at("old.prom"), at("link.prom")).unwrap();
        mkfifo(&at("pipe.prom"), Mode::S_IRWXU).unwrap();
        let table = [
            ("none yet", "new.prom", None),
            ("an old one", "old.prom", None),
            (
                "a directory",
                "directory.prom",
                Some("it is not a regular file"),
            ),
            ("a link", "link.prom", Some("it is not a regular file")),
            ("a pipe", "pipe.prom", Some("it is not a regular file")),
            (
                "a directory that is not there",
                "none/new.prom",
                Some("can't be written"),
            ),
        ];
        for (name, file, expected) in table {
            let written = write(&at(file), "new").map_err(|error| error.to_string());
            match expected {
                None => {
                    assert_eq!(written, Ok(()), "{name}");
                    assert_eq!(fs::read_to_string(at(file)).unwrap(), "new", "{name}");
                }
                Some(words) => assert!(written.is_err_and(|error| error.contains(words)), "{name}"),
            }
        }
        let kind = |name: &str| fs::symlink_metadata(at(name)).unwrap().file_type();
        assert!(kind("link.prom").is_symlink());
        assert!(kind("pipe.prom").is_fifo());
    }
}
