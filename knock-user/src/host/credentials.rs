//! Secrets that the service manager passes on (`LoadCredential=` in systemd.exec(5)).

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// What a file name begins with if it is the name of a credential.
pub(crate) const PREFIX: &str = "credential:";

/// The variable with the directory of a service's credentials.
const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Where systemd puts those of the service of packages; outside of it, only root can enter.
const OF_SERVICE: &str = "/run/credentials/knock-user.service";

/// Returns the file of a credential.
///
/// # Errors
/// The name is none, or neither this process nor the service has this credential.
pub(crate) fn path(name: &str) -> Result<PathBuf, String> {
    let path = path_in(directory(), name)?;
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "there is no credential {name} in {}: add LoadCredential={name}:FILE to the unit of the \
             service, and restart it",
            path.parent().unwrap_or(Path::new("")).display()
        )),
        // Another error is that of reading the file.
        Ok(_) | Err(_) => Ok(path),
    }
}

/// Returns whether a file is a credential.
pub(crate) fn has(file: &Path) -> bool {
    directory().is_some_and(|directory| file.starts_with(directory))
}

/// Returns the directory with the credentials of this process, or else of the service: commands that an administrator
/// runs read the same configuration.
fn directory() -> Option<PathBuf> {
    let own = env::var_os(VARIABLE).map(PathBuf::from);
    let of_service = || Some(PathBuf::from(OF_SERVICE)).filter(|directory| directory.is_dir());
    own.filter(|directory| directory.is_absolute())
        .or_else(of_service)
}

fn path_in(directory: Option<PathBuf>, name: &str) -> Result<PathBuf, String> {
    if name.contains('/') || ["", ".", ".."].contains(&name) {
        return Err(format!(
            "\"{PREFIX}{name}\" names no credential: write \"{PREFIX}NAME\", with the NAME of \
             LoadCredential=NAME:FILE"
        ));
    }
    match directory {
        Some(directory) => Ok(directory.join(name)),
        None => Err(format!(
            "{PREFIX}{name} is unknown, because {VARIABLE} is not set: add LoadCredential={name}:FILE to \
             the unit of the service; elsewhere, set the variable to a directory that has the file {name}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_file_of_its_directory() {
        let at = || Some(PathBuf::from("/run/credentials/knock-user.service"));
        let found = path_in(at(), "host.key").unwrap();
        assert_eq!(
            found,
            Path::new("/run/credentials/knock-user.service/host.key")
        );
        for (name, directory, credential, reason) in [
            ("empty", at(), "", "names no credential"),
            ("a path", at(), "../etc/shadow", "names no credential"),
            ("the parent", at(), "..", "names no credential"),
            (
                "no directory",
                None,
                "host.key",
                "CREDENTIALS_DIRECTORY is not set",
            ),
        ] {
            let error = path_in(directory, credential).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}
