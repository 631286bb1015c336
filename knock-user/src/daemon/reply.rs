//! What an administrator asks, and what is replied.

use std::{io::Write, time::Duration};

use anyhow::{Result, bail};

use super::Daemon;
use crate::control::{Answer, Peer, Reply, Request, answers::Detached};

impl<W: Write> Daemon<W> {
    /// Does what is asked, but for the end of the daemon.
    pub(super) fn reply(&mut self, request: &Request, peer: &Peer) -> Reply {
        Reply::of(self.answer(request, peer))
    }

    fn answer(&mut self, request: &Request, peer: &Peer) -> Result<Answer> {
        match request {
            // These are answered when they are done.
            Request::Reload { .. } | Request::Confirm {} => bail!("it is answered elsewhere"),
            Request::Status {} => self.status().map(Answer::Status),
            Request::List {} => Ok(Answer::List(self.list())),
            Request::Grant {
                source,
                door,
                for_ms,
            } => {
                let lasts = for_ms.map(Duration::from_millis);
                let granted = self.grant(*source, door, lasts, peer)?;
                Ok(Answer::Granted(granted))
            }
            Request::Revoke { source, door } => {
                let revoked = self.revoke(*source, door.as_deref(), peer)?;
                Ok(Answer::Revoked(revoked))
            }
            Request::Explain {
                source,
                port,
                destination: to,
            } => {
                let explanation = self.explain(*source, port, *to)?;
                Ok(Answer::Explained(explanation))
            }
            Request::Detach {} => {
                tracing::warn!("asked to detach by uid {}", peer.uid);
                Ok(Answer::Detached(Detached {
                    interfaces: self.protection.instance().linked(),
                    ports: self.ports.clone(),
                }))
            }
        }
    }
}
