//! The client's end of a connection.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{getsockopt, sockopt};

use super::protocol::{Answer, BadFile, Failure, Incoming, Reply};
use crate::model::problem::Misuse;

/// How long a daemon may take to answer: a reload of the largest configuration takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects to a socket; `None` if nobody listens there.
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

/// Whether somebody listens there, also if that is not for this user.
pub(crate) fn is_listened_to(path: &Path) -> bool {
    !matches!(open(path), Ok(None))
}

/// Whether this process listens there.
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

/// Asks and gets an answer, and what comes after it.
pub(crate) fn ask(
    incoming: &Incoming,
    stream: UnixStream,
) -> Result<(Answer, BufReader<UnixStream>)> {
    // Who is not let in is told so without being heard: the reply counts.
    let sent = (&stream).write_all(incoming.to_line().as_bytes());
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(NoAnswer.into());
        }
        read => read.context("reading the answer")?,
    };
    if line.is_empty() {
        sent.context("asking")?;
        bail!("the process ended without an answer");
    }
    match Reply::from_line(&line) {
        Ok(Reply::Done(answer)) => Ok((answer, reader)),
        Ok(Reply::Failed(Failure {
            message,
            names_file: true,
            ..
        })) => Err(BadFile(message).into()),
        Ok(Reply::Failed(Failure {
            message,
            bad_configuration: true,
            ..
        })) => Err(Misuse(message).into()),
        Ok(Reply::Failed(Failure { message, .. })) => bail!("{message}"),
        Err(reason) => bail!("{reason}"),
    }
}
