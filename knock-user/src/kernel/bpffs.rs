//! The file system in which links and maps outlive this process.

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
/// Whoever can read a pinned map can see who may pass.
const MODE: u32 = 0o700;
/// As systemd mounts it.
const OPTIONS: &str = "mode=700";

/// Makes sure that a directory is there, lies on a bpffs and can be written to; tells whether the
/// bpffs had to be mounted. It is mounted on [`MOUNT_POINT`] alone.
///
/// # Errors
/// It can't be, for a reason that is told together with the command that mends it.
pub fn ensure(directory: &Path) -> Result<bool> {
    let mounted = match is_bpffs(&nearest(directory)?) {
        Ok(true) => false,
        Ok(false) if directory.starts_with(MOUNT_POINT) => mount_bpffs(directory)?,
        Ok(false) => bail!(
            "{0} lies on no bpffs, so nothing can be pinned there: take a directory in \
             {MOUNT_POINT}, or mount one: sudo mount -t bpf bpf {0}",
            directory.display()
        ),
        Err(error) => return Err(refused(directory, error)),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(directory)
        .map_err(|error| refused(directory, errno(&error)))?;
    let needed = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, directory, needed, AtFlags::AT_EACCESS)
        .map_err(|error| refused(directory, error))?;
    let owner = Uid::from_raw(fs::metadata(directory)?.uid());
    // A capability that is given up later.
    let overrides = caps::has_cap(None, CapSet::Effective, Capability::CAP_DAC_OVERRIDE);
    ensure!(
        owner == Uid::effective() || !overrides.unwrap_or(false),
        "{0} belongs to {owner}, and root does not keep what it takes to write there: run knock-user \
         as {owner}, or take it over: sudo chown -Rh root {0} {RUN}",
        directory.display(),
        owner = name(owner),
    );
    Ok(mounted)
}

/// The directory itself, or the nearest one above it that is there.
fn nearest(directory: &Path) -> Result<PathBuf> {
    for path in directory.ancestors() {
        match fs::metadata(path) {
            Ok(_) => return Ok(path.to_path_buf()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(directory, errno(&error))),
        }
    }
    bail!("{}: not an absolute path", directory.display())
}

/// Whether there is such a directory, on a bpffs.
pub fn is_one(directory: &Path) -> bool {
    is_bpffs(directory).is_ok_and(|is_one| is_one)
}

/// Whether a directory is there and lies on a bpffs.
pub fn is_mounted_at(path: &Path) -> bool {
    is_bpffs(path).is_ok_and(|there| there)
}

fn is_bpffs(path: &Path) -> Result<bool, Errno> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts it, unless somebody else just did: a second one would hide what is pinned in the first.
fn mount_bpffs(directory: &Path) -> Result<bool> {
    let at = Path::new(MOUNT_POINT);
    let below = File::open(at).with_context(|| {
        format!("opening {MOUNT_POINT}, where bpffs belongs: is /sys mounted, and does this kernel have CONFIG_BPF_SYSCALL?")
    })?;
    let _turn = Flock::lock(below, FlockArg::LockExclusive)
        .map_err(|(_, error)| anyhow!("waiting for whoever mounts bpffs: {}", error.desc()))?;
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

/// Why a directory can't be used, and what to do.
fn refused(directory: &Path, error: Errno) -> anyhow::Error {
    let shown = directory.display();
    let dotted = directory.iter().any(|part| {
        let part = part.as_encoded_bytes();
        part.contains(&b'.') && part != b"." && part != b".."
    });
    // bpf_lookup() reserves them.
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
        anyhow!("{shown} can't be used for pins: a part of it is no directory")
    } else {
        anyhow!("{shown} can't be used for pins: {}", error.desc())
    }
}

/// The commands that give an ordinary user a directory of its own.
fn handing_over(directory: &Path, user: &str) -> String {
    format!(
        "sudo install -d -m 700 -o {user} {} && sudo chmod o+x {MOUNT_POINT}",
        directory.display()
    )
}

/// Who runs this.
fn user() -> String {
    name(Uid::effective())
}

/// The name of a user, or else the number.
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
    fn refusals_say_what_to_do() {
        let rows: [(&str, &str, Errno, &[&str]); 6] = [
            (
                "a directory of somebody else",
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
                &["no directory"],
            ),
            (
                "something else",
                DIRECTORY,
                Errno::ENOMEM,
                &[DIRECTORY, "memory"],
            ),
        ];
        for (name, directory, error, words) in rows {
            let told = refused(Path::new(directory), error).to_string();
            for word in words {
                assert!(told.contains(word), "{name}: no {word:?} in: {told}");
            }
        }
    }

    #[test]
    fn what_is_no_bpffs_is_not_mounted_over() {
        let directory = tempfile::tempdir().unwrap();
        for path in [
            directory.path().to_path_buf(),
            directory.path().join("a/b/c"),
        ] {
            let told = ensure(&path).unwrap_err().to_string();
            for word in ["no bpffs", &path.display().to_string(), "mount -t bpf bpf"] {
                assert!(told.contains(word), "no {word:?} in: {told}");
            }
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
