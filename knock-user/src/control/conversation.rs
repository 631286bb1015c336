//! A connection, from its first line to its end.
//!
//! A client can neither block the daemon nor fill its memory: the number of connections, the length of
//! a request and the time to send it are bounded, a reply that is not read is dropped, and each watcher
//! has its own queue.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    access::{self, Peer, SocketAccess},
    call::{Call, Response},
    protocol::{Reply, Request},
};
use crate::{console::watch::Watcher, host::os_error};

/// Connections that are served at once, besides those that watch; more wait for their turn.
pub const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request.
pub const REQUEST_MAX: usize = 64 << 10;
/// How long a request may take to arrive, and a reply to be read.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after a connection could not be taken, as when descriptors are used up.
const RETRY: Duration = Duration::from_millis(100);

/// The parts that all connections share.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) access: watch::Receiver<SocketAccess>,
    pub(super) called: mpsc::Sender<Call>,
    pub(super) ended: watch::Receiver<bool>,
}

/// Serves each connection, a limited number at once.
pub(super) async fn accept(listener: UnixListener, entrance: Arc<Entrance>) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Never closed, so never an error.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&entrance), turn));
            }
            Err(error) => {
                tracing::debug!(
                    "a control connection could not be taken: {}",
                    os_error::plain(&error)
                );
                sleep(RETRY).await;
            }
        }
    }
}

/// Serves a connection until its end; its errors affect no other connection.
async fn serve(stream: UnixStream, entrance: Arc<Entrance>, turn: OwnedSemaphorePermit) {
    if let Err(error) = converse(stream, &entrance, turn).await {
        tracing::debug!("a control connection ended: {error}");
    }
}

async fn converse(
    stream: UnixStream,
    entrance: &Entrance,
    turn: OwnedSemaphorePermit,
) -> io::Result<()> {
    let peer = peer_of(&stream)?;
    let (read, mut write) = stream.into_split();
    let mut access = entrance.access.clone();
    let admitting = access.borrow_and_update().clone();
    if !is_admitted(&admitting, peer).await {
        return send(&mut write, &Reply::failed(admitting.refusal(&peer))).await;
    }
    let mut read = BufReader::new(read);
    let mut ended = entrance.ended.clone();
    let asked = tokio::select! {
        asked = timeout(PATIENCE, request(&mut read)) => asked,
        _ = ended.wait_for(|is_ending| *is_ending) => return Ok(()),
    };
    let line = match asked {
        Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some(line))) => line,
        Ok(Err(error)) => return send(&mut write, &Reply::bad(error.to_string())).await,
        Err(_) => {
            let reason = format!("no request came within {} s", PATIENCE.as_secs());
            return send(&mut write, &Reply::bad(reason)).await;
        }
    };
    let request = match Request::from_line(&line) {
        Ok(request) => request,
        Err(reason) => return send(&mut write, &Reply::bad(reason)).await,
    };
    // Access may have changed since the connection was made.
    let admitting = access.borrow_and_update().clone();
    if !is_admitted(&admitting, peer).await {
        return send(&mut write, &Reply::failed(admitting.refusal(&peer))).await;
    }
    let Response { reply, lines } = ask(entrance, request, peer).await;
    let Some(lines) = lines else {
        return send(&mut write, &reply).await;
    };
    // Watchers stay; others need the turn.
    drop(turn);
    send(&mut write, &reply).await?;
    tokio::select! {
        streamed = stream_lines(lines, &mut read, &mut write) => streamed,
        () = excluded(access, peer) => Ok(()),
    }
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid(),
    })
}

async fn is_admitted(access: &SocketAccess, peer: Peer) -> bool {
    if access.admits(&peer, |_| Vec::new()) {
        return true;
    }
    // The databases may be far away.
    let asked = tokio::task::spawn_blocking(move || access::groups_of(peer.uid));
    let groups = asked.await.unwrap_or_default();
    access.admits(&peer, |_| groups)
}

/// Returns when a peer is no longer let in.
async fn excluded(mut access: watch::Receiver<SocketAccess>, peer: Peer) {
    loop {
        let admitting = access.borrow_and_update().clone();
        if !is_admitted(&admitting, peer).await {
            return;
        }
        if access.changed().await.is_err() {
            // The daemon ends, which ends the connection in its own time.
            return std::future::pending().await;
        }
    }
}

/// Returns the line that a client sends; none if it sends nothing.
async fn request(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let most = REQUEST_MAX as u64 + 1;
    read.take(most).read_until(b'\n', &mut line).await?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(Some(line));
    }
    match line.len() {
        0 => Ok(None),
        REQUEST_MAX.. => Err(io::Error::other(format!(
            "the request is longer than {} KiB",
            REQUEST_MAX >> 10
        ))),
        _ => Err(io::Error::other(
            "the request ends in the middle of its line",
        )),
    }
}

async fn ask(entrance: &Entrance, request: Request, peer: Peer) -> Response {
    let (call, responded) = Call::new(request, peer);
    let ending = || Response {
        reply: Reply::failed("the daemon is ending"),
        lines: None,
    };
    if entrance.called.send(call).await.is_err() {
        return ending();
    }
    let mut ended = entrance.ended.clone();
    tokio::select! {
        biased;
        responded = responded => responded.unwrap_or_else(|_| ending()),
        _ = ended.wait_for(|is_ending| *is_ending) => ending(),
    }
}

async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let line = reply.to_line();
    timeout(PATIENCE, write.write_all(line.as_bytes())).await?
}

/// Writes lines until the watcher ends, or until the other side closes or sends anything.
async fn stream_lines(
    mut watcher: Watcher,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let mut byte = [0];
    loop {
        let line = tokio::select! {
            line = watcher.next() => line,
            _ = read.read(&mut byte) => return Ok(()),
        };
        let Some(line) = line else {
            return Ok(());
        };
        tokio::select! {
            written = write.write_all(line.as_bytes()) => written?,
            _ = read.read(&mut byte) => return Ok(()),
        }
    }
}
