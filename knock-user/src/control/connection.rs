//! The client's end of a connection.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{getsockopt, sockopt};
use serde_json::Value;

use super::protocol::{BadFile, CommandFailure, Reply, Request};
use crate::model::problem::Misuse;

/// How long a daemon may take to answer: a reload of the largest configuration takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects to a socket; `None` if no process listens on it.
pub(crate) fn open(path: &Path) -> Result<Option<UnixStream>> {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    match UnixStream::connect(path) {
        Ok(stream) => {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Some(stream))
        }
        Err(error) if [ConnectionRefused, NotFound].contains(&error.kind()) => Ok(None),
        Err(error) if error.kind() == PermissionDenied => Err(anyhow!(
            "{} is for root: try `sudo`, or have `[control] group` let you in",
            path.display()
        )),
        Err(error) => Err(error).with_context(|| format!("connecting to {}", path.display())),
    }
}

/// Returns whether a process listens on a socket, even if this user may not connect.
pub(crate) fn is_listened_to(path: &Path) -> bool {
    !matches!(open(path), Ok(None))
}

/// Returns whether the process with this id listens on a socket.
pub(crate) fn is_of(path: &Path, process: u32) -> bool {
    let Ok(Some(stream)) = open(path) else {
        return false;
    };
    let peer = getsockopt(&stream, sockopt::PeerCredentials);
    peer.is_ok_and(|peer| u32::try_from(peer.pid()) == Ok(process))
}

/// The process takes longer to answer than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the process does not answer: `kill` it, and start it again")]
pub(crate) struct NoAnswer;

/// The process was asked and has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the process ended without an answer")]
pub(crate) struct Ended;

/// Sends a request; returns the answer, and what follows it.
///
/// # Errors
/// The daemon can't be reached, does not answer in time ([`NoAnswer`]) or ends ([`Ended`]), or it
/// reports a failure: [`BadFile`] or [`Misuse`] if the configuration or the request is at fault.
pub(crate) fn ask(request: &Request, stream: UnixStream) -> Result<(Value, BufReader<UnixStream>)> {
    // A client without access gets a reply before its request is read: the reply counts.
    let sent = (&stream).write_all(request.to_line().as_bytes());
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(NoAnswer.into());
        }
        // It ended before it read the request.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            return Err(Ended.into());
        }
        read => read.context("reading the answer")?,
    };
    if line.is_empty() {
        return Err(match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                anyhow::Error::from(error).context("asking")
            }
            Ok(()) | Err(_) => Ended.into(),
        });
    }
    match Reply::from_line(&line) {
        Ok(Reply::Done(answer)) => Ok((answer, reader)),
        Ok(Reply::Failed(CommandFailure {
            message,
            names_file: true,
            ..
        })) => Err(BadFile(message).into()),
        Ok(Reply::Failed(CommandFailure {
            message,
            bad_configuration: true,
            ..
        })) => Err(Misuse(message).into()),
        Ok(Reply::Failed(CommandFailure { message, .. })) => bail!("{message}"),
        Err(reason) => bail!("{reason}"),
    }
}
