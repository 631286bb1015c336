//! The file of the control socket: its place, its group and its mode.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::UnixStream,
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::access::SocketAccess;
use crate::host::private_files;

/// How long a process that ends may still be listening.
const DYING: Duration = Duration::from_secs(1);
/// How long to wait before the socket is tried again.
const RETRY: Duration = Duration::from_millis(100);

pub(super) fn make_room(path: &Path) -> Result<()> {
    let shown = path.display();
    if let Some(directory) = path.parent() {
        private_files::directory(directory)
            .with_context(|| format!("making {} for the socket", directory.display()))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("looking at {shown}")),
        Ok(file) if !file.file_type().is_socket() => {
            bail!("{shown} is not a socket: remove it, and start again")
        }
        Ok(_) => {}
    }
    let patience = Instant::now() + DYING;
    loop {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            Err(error) => return Err(error).with_context(|| format!("trying {shown}")),
            // A process that is about to end may have let go of everything else.
            Ok(_) if Instant::now() < patience => thread::sleep(RETRY),
            Ok(_) => bail!("another knock-user listens on {shown}: `knock-user status` shows it"),
        }
    }
    fs::remove_file(path).with_context(|| format!("removing {shown}, which nobody listens on"))
}

pub(super) fn set_access(path: &Path, access: &SocketAccess) -> Result<()> {
    if let Some(gid) = access.gid() {
        chown(path, None, Some(gid)).with_context(|| {
            format!(
                "giving {} to the group that [control] names: knock-user must be root or a member \
                 of it",
                path.display()
            )
        })?;
    }
    set_mode(path, access)
}

fn set_mode(path: &Path, access: &SocketAccess) -> Result<()> {
    let mode = match access.gid() {
        Some(_) => 0o660,
        None => 0o600,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

/// Sets the access of a socket that is in use. The group stays when none is let in any more: the mode
/// keeps it out, and it can be let in again without the capability to give files away.
pub(super) fn change_access(path: &Path, access: &SocketAccess) -> Result<()> {
    let shown = path.display();
    let file = match fs::symlink_metadata(path) {
        // Nobody can connect to it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file.with_context(|| format!("looking at {shown}"))?,
    };
    if let Some(gid) = access.gid().filter(|gid| *gid != file.gid()) {
        chown(path, None, Some(gid)).with_context(|| {
            format!(
                "{shown} can't be given to the group that [control] names while knock-user runs: \
                 restart it for that, or leave `[control] group` unchanged"
            )
        })?;
    }
    set_mode(path, access)
}
