//! The daemon's end of the socket.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, umask};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    access::SocketAccess,
    call::{Asker, Call},
    conversation::{CONNECTIONS_MAX, Entrance, accept},
    protocol::Reply,
    socket_file::{change_access, make_room, set_access},
};
use crate::console::watch::Watchers;

/// How long the last replies and lines may take to be read when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Listens, and hands over what is asked for.
///
/// When it is dropped, the socket's file is removed and connections end at once.
#[derive(Debug)]
pub struct ControlServer {
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

impl ControlServer {
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

    /// Restores the access from before the last [`ControlServer::admit`].
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

    /// Returns the next request; never if there is none.
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

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.listening.abort();
        self.watchers.end();
        self.remove_file();
    }
}
