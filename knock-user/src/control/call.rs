//! Requests on their way to the loop, and their replies.

use nix::unistd::{Gid, Uid};
use tokio::sync::{mpsc, oneshot};

use super::{
    access::Peer,
    protocol::{Reply, Request},
};
use crate::console::watch::Watcher;

/// A request that waits for its reply.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// The process that sent it.
    pub peer: Peer,
    response: oneshot::Sender<Response>,
}

/// A reply, and lines that follow it.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) reply: Reply,
    pub(super) lines: Option<Watcher>,
}

impl Call {
    /// Returns a call, and what receives its reply.
    pub(super) fn new(request: Request, peer: Peer) -> (Self, oneshot::Receiver<Response>) {
        let (response, responded) = oneshot::channel();
        let call = Self {
            request,
            peer,
            response,
        };
        (call, responded)
    }

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
pub struct Asker(pub(super) mpsc::Sender<Call>);

impl Asker {
    /// Sends a request like a client, and returns the reply.
    pub async fn ask(&self, request: Request) -> Reply {
        let peer = Peer {
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
            pid: i32::try_from(std::process::id()).ok(),
        };
        let (call, responded) = Call::new(request, peer);
        let sent = self.0.send(call).await;
        match (sent, responded.await) {
            (Ok(()), Ok(Response { reply, .. })) => reply,
            (Ok(()) | Err(_), _) => Reply::failed("the daemon is ending"),
        }
    }

    /// Returns one whose requests a test answers.
    #[cfg(test)]
    pub(crate) fn for_tests() -> (Self, mpsc::Receiver<Call>) {
        let (called, calls) = mpsc::channel(1);
        (Self(called), calls)
    }
}
