//! Finds or mounts the BPF file system, which keeps links and maps without a process.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::{AccessFlags, Uid, User, faccessat},
};

use crate::host::paths::{MOUNT_POINT, RUN};

/// Where links and maps are pinned.
pub const DIRECTORY: &str = "/sys/fs/bpf/knock";
/// A user who can read a pinned map can see the sources with grants.
const MODE: u32 = 0o700;
/// The options with which systemd mounts it.
const OPTIONS: &str = "mode=700";

/// Creates a directory on a bpffs and checks that it is writable. Mounts bpffs if necessary, on
/// [`MOUNT_POINT`] alone. Returns whether it was mounted.
///
/// # Errors
/// The directory can't be used; the error has the reason and the command that cures it.
pub fn ensure(directory: &Path) -> Result<bool> {
    let mounted = match is_bpffs(&nearest(directory)?) {
        Ok(true) => false,
        Ok(false) if directory.starts_with(MOUNT_POINT) => mount_bpffs(directory)?,
        Ok(false) => bail!(
            "{0} lies on no bpffs, so nothing can be pinned there: take a directory in \
             {MOUNT_POINT}, or mount one: sudo mount -t bpf bpf {0}",
            directory.display()
        ),
        Err(error) => return Err(unusable_error(directory, error)),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(directory)
        .map_err(|error| unusable_error(directory, errno(&error)))?;
    let needed = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, directory, needed, AtFlags::AT_EACCESS)
        .map_err(|error| unusable_error(directory, error))?;
    let owner = Uid::from_raw(fs::metadata(directory)?.uid());
    // This also fails without a capability that is dropped later.
    let overrides = caps::has_cap(None, CapSet::Effective, Capability::CAP_DAC_OVERRIDE);
    ensure!(
        owner == Uid::effective() || !overrides.unwrap_or(false),
        "{0} belongs to {owner}, and root gives up the capability to write there: run knock-user \
         as {owner}, or take it over: sudo chown -Rh root {0} {RUN}",
        directory.display(),
        owner = name(owner),
    );
    Ok(mounted)
}

/// Returns the directory itself, or its nearest existing ancestor.
fn nearest(directory: &Path) -> Result<PathBuf> {
    for path in directory.ancestors() {
        match fs::metadata(path) {
            Ok(_) => return Ok(path.to_path_buf()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable_error(directory, errno(&error))),
        }
    }
    bail!("{}: not an absolute path", directory.display())
}

/// Returns whether the path is an existing directory on a bpffs.
pub fn is_one(directory: &Path) -> bool {
    is_bpffs(directory).is_ok_and(|is_one| is_one)
}

/// Returns whether the path exists and lies on a bpffs.
pub fn is_mounted_at(path: &Path) -> bool {
    is_bpffs(path).is_ok_and(|there| there)
}

fn is_bpffs(path: &Path) -> Result<bool, Errno> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts bpffs, unless another process just has: a second mount would hide the pins in the first.
fn mount_bpffs(directory: &Path) -> Result<bool> {
    let at = Path::new(MOUNT_POINT);
    let below = File::open(at).with_context(|| {
        format!("opening {MOUNT_POINT}, where bpffs belongs: is /sys mounted, and does this kernel have CONFIG_BPF_SYSCALL?")
    })?;
    let _turn = Flock::lock(below, FlockArg::LockExclusive).map_err(|(_, error)| {
        anyhow!(
            "waiting for another process that mounts bpffs: {}",
            error.desc()
        )
    })?;
    if is_bpffs(at).is_ok_and(|there| there) {
        return Ok(false);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), at, Some("bpf"), flags, Some(OPTIONS)).map_err(|error| {
        let then = if Uid::effective().is_root() {
            String::new()
        } else {
            format!(", and then {}", handing_over(directory, &user()))
        };
        anyhow!(
            "there is no bpffs on {MOUNT_POINT}, and mounting it takes CAP_SYS_ADMIN ({}): \
             sudo mount -t bpf bpf {MOUNT_POINT} -o nosuid,nodev,noexec,{OPTIONS}{then}",
            error.desc()
        )
    })?;
    Ok(true)
}

/// Returns the error for an unusable directory, with the cure.
fn unusable_error(directory: &Path, error: Errno) -> anyhow::Error {
    let shown = directory.display();
    let dotted = directory.iter().any(|part| {
        let part = part.as_encoded_bytes();
        part.contains(&b'.') && part != b"." && part != b".."
    });
    // bpf_lookup() reserves such names.
    if error == Errno::EPERM && dotted {
        anyhow!("{shown}: bpffs takes no names with dots")
    } else if matches!(error, Errno::EACCES | Errno::EPERM) {
        anyhow!(
            "{shown} can't be used for pins by this user ({}): {}",
            error.desc(),
            handing_over(directory, &user())
        )
    } else if error == Errno::EROFS {
        anyhow!(
            "{shown} can't be used for pins: it is mounted read-only here; in a systemd unit, \
             ReadWritePaths={shown} mends it"
        )
    } else if matches!(error, Errno::ENOTDIR | Errno::EEXIST) {
        anyhow!("{shown} can't be used for pins: a part of the path is not a directory")
    } else {
        anyhow!("{shown} can't be used for pins: {}", error.desc())
    }
}

/// Returns the commands that create a directory owned by an ordinary user.
fn handing_over(directory: &Path, user: &str) -> String {
    format!(
        "sudo install -d -m 700 -o {user} {} && sudo chmod o+x {MOUNT_POINT}",
        directory.display()
    )
}

/// Returns the name of the current user.
fn user() -> String {
    name(Uid::effective())
}

/// Returns the name of a user, or else the number.
fn name(id: Uid) -> String {
    let known = User::from_uid(id).ok().flatten();
    known.map_or_else(|| id.to_string(), |user| user.name)
}

fn errno(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_cure() {
        let rows: [(&str, &str, Errno, &[&str]); 6] = [
            (
                "a directory of another user",
                DIRECTORY,
                Errno::EACCES,
                &[
                    "sudo install -d -m 700 -o",
                    DIRECTORY,
                    "sudo chmod o+x /sys/fs/bpf",
                ],
            ),
            ("not allowed", DIRECTORY, Errno::EPERM, &["sudo install -d"]),
            (
                "a dot",
                "/sys/fs/bpf/v1.2",
                Errno::EPERM,
                &["v1.2", "no names with dots"],
            ),
            (
                "a hardened unit",
                DIRECTORY,
                Errno::EROFS,
                &["ReadWritePaths=/sys/fs/bpf/knock"],
            ),
            (
                "a file in the way",
                DIRECTORY,
                Errno::ENOTDIR,
                &["not a directory"],
            ),
            (
                "something else",
                DIRECTORY,
                Errno::ENOMEM,
                &[DIRECTORY, "memory"],
            ),
        ];
        for (name, directory, error, words) in rows {
            let message = unusable_error(Path::new(directory), error).to_string();
            for word in words {
                assert!(message.contains(word), "{name}: no {word:?} in: {message}");
            }
        }
    }

    #[test]
    fn another_file_system_is_not_mounted_over() {
        let directory = tempfile::tempdir().unwrap();
        for path in [
            directory.path().to_path_buf(),
            directory.path().join("a/b/c"),
        ] {
            let message = ensure(&path).unwrap_err().to_string();
            for word in ["no bpffs", &path.display().to_string(), "mount -t bpf bpf"] {
                assert!(message.contains(word), "no {word:?} in: {message}");
            }
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
