//! The daemon's end of the socket.
//!
//! A client can neither block the daemon nor fill its memory: the number of connections, the length of
//! a request and the time to send it are bounded, a reply that is not read is dropped, and each watcher
//! has its own queue.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::stat::{Mode, umask},
    unistd::{Gid, Uid},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    access::{self, Peer, SocketAccess},
    protocol::{Reply, Request},
    socket_file::{change_access, make_room, set_access},
};
use crate::{
    console::watch::{Watcher, Watchers},
    host::os_error,
};

/// Connections that are served at once, besides those that watch; more wait for their turn.
pub const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request.
pub const REQUEST_MAX: usize = 64 << 10;
/// How long a request may take to arrive, and a reply to be read.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last replies and lines may take to be read when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long to wait after a connection could not be taken, as when descriptors are used up.
const RETRY: Duration = Duration::from_millis(100);
/// A request that waits for its reply.
#[derive(Debug)]
pub struct Call {
    /// What is asked for.
    pub request: Request,
    /// By whom.
    pub peer: Peer,
    response: oneshot::Sender<Response>,
}

/// A reply, and lines that follow it.
#[derive(Debug)]
struct Response {
    reply: Reply,
    lines: Option<Watcher>,
}

impl Call {
    /// Sends the reply, unless the client has gone.
    pub fn answer(self, reply: Reply) {
        let _gone = self.response.send(Response { reply, lines: None });
    }

    /// Sends the reply and then lines, until either side ends.
    pub fn answer_and_stream(self, reply: Reply, lines: Watcher) {
        let _gone = self.response.send(Response {
            reply,
            lines: Some(lines),
        });
    }
}

/// Asks the daemon from within its own process.
#[derive(Clone, Debug)]
pub struct Asker(mpsc::Sender<Call>);

impl Asker {
    /// Sends a request like a client, and returns the reply.
    pub async fn ask(&self, request: Request) -> Reply {
        let (response, responded) = oneshot::channel();
        let peer = Peer {
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
            pid: i32::try_from(std::process::id()).ok(),
        };
        let call = Call {
            request,
            peer,
            response,
        };
        let sent = self.0.send(call).await;
        match (sent, responded.await) {
            (Ok(()), Ok(Response { reply, .. })) => reply,
            (Ok(()) | Err(_), _) => Reply::failed("the daemon is ending"),
        }
    }

    /// Returns one whose requests a test answers.
    #[cfg(test)]
    pub(crate) fn for_tests() -> (Self, mpsc::Receiver<Call>) {
        let (called, calls) = mpsc::channel(CONNECTIONS_MAX);
        (Self(called), calls)
    }
}

/// Listens, and hands over what is asked for.
///
/// When it is dropped, the socket's file is removed and connections end at once.
#[derive(Debug)]
pub struct Server {
    calls: mpsc::Receiver<Call>,
    asker: Asker,
    listening: JoinHandle<()>,
    watchers: Watchers,
    /// The users that are accepted now.
    access: watch::Sender<SocketAccess>,
    /// The users that were accepted before the last change.
    before: Option<SocketAccess>,
    /// Announces the end of the daemon to connections; closed when the last of them has ended.
    ending: watch::Sender<bool>,
    /// The socket's file, until it is removed.
    path: Option<PathBuf>,
}

impl Server {
    /// Listens on a path; must be called inside a tokio runtime. An abandoned socket is replaced.
    ///
    /// # Errors
    /// A process listens there already, or the socket can't be created.
    pub fn listen(path: &Path, access: SocketAccess, watchers: Watchers) -> Result<Self> {
        make_room(path)?;
        // No client may connect before the access is set, whatever the umask is.
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.with_context(|| format!("listening on {}", path.display()))?;
        set_access(path, &access)?;
        let (called, calls) = mpsc::channel(CONNECTIONS_MAX);
        let (ending, ended) = watch::channel(false);
        let (access, current) = watch::channel(access);
        let door = Entrance {
            access: current,
            called: called.clone(),
            ended,
        };
        Ok(Self {
            calls,
            asker: Asker(called),
            listening: tokio::spawn(accept(listener, Arc::new(door))),
            watchers,
            access,
            before: None,
            ending,
            path: Some(path.to_owned()),
        })
    }

    /// Returns what asks the daemon without the socket.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Lets others in from now on. Connections of a user who is no longer let in end.
    ///
    /// # Errors
    /// The socket can't be given to the group, which needs a capability that this process has given
    /// up; nothing changes.
    pub fn admit(&mut self, access: SocketAccess) -> Result<()> {
        if let Some(path) = self
            .path
            .as_ref()
            .filter(|_| *self.access.borrow() != access)
        {
            change_access(path, &access)?;
        }
        self.before = Some(self.access.send_replace(access));
        Ok(())
    }

    /// Restores the access from before the last [`Server::admit`].
    ///
    /// # Errors
    /// The socket's mode can't be set; access is still decided by the credentials of the peer.
    pub fn admit_as_before(&mut self) -> Result<()> {
        let Some(access) = self.before.take() else {
            return Ok(());
        };
        let changed = match self.path.as_ref() {
            Some(path) if *self.access.borrow() != access => change_access(path, &access),
            Some(_) | None => Ok(()),
        };
        self.access.send_replace(access);
        changed
    }

    /// The next request; never if there is none.
    ///
    /// It can be dropped while it waits: no request is lost by that.
    pub async fn call(&mut self) -> Call {
        match self.calls.recv().await {
            Some(call) => call,
            None => std::future::pending().await,
        }
    }

    /// Refuses further requests, answers waiting ones that the daemon is ending, and leaves the last
    /// replies and lines a moment to be read.
    pub async fn finish(mut self) {
        self.listening.abort();
        self.remove_file();
        self.calls.close();
        while let Ok(call) = self.calls.try_recv() {
            call.answer(Reply::failed("the daemon is ending"));
        }
        self.watchers.end();
        let _all_gone = self.ending.send(true);
        let _late = timeout(FAREWELL, self.ending.closed()).await;
    }

    /// Removes the socket once: a later file is another daemon's.
    fn remove_file(&mut self) {
        if let Some(path) = self.path.take() {
            // If it can't be removed, the next start replaces it.
            let _stays = fs::remove_file(path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listening.abort();
        self.watchers.end();
        self.remove_file();
    }
}

/// What every connection needs.
#[derive(Debug)]
struct Entrance {
    access: watch::Receiver<SocketAccess>,
    called: mpsc::Sender<Call>,
    ended: watch::Receiver<bool>,
}

async fn accept(listener: UnixListener, entrance: Arc<Entrance>) {
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

/// The line that a client sends; none if it says nothing at all.
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
    let (response, responded) = oneshot::channel();
    let call = Call {
        request,
        peer,
        response,
    };
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
