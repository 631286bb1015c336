//! What an administrator asks, and what is replied.

use std::io::Write;

use anyhow::Result;

use super::{Daemon, Outcome};
use crate::control::{
    Answer, Peer, Reply, Request,
    answers::{Confirmed, Detached, Reloaded},
};

impl<W: Write> Daemon<W> {
    /// Does what is asked; the daemon ends if an outcome is returned.
    pub(super) fn reply(&mut self, request: &Request, peer: &Peer) -> (Reply, Option<Outcome>) {
        if matches!(request, Request::Detach {}) {
            tracing::warn!("asked to detach by uid {}", peer.uid);
            let detached = Detached {
                interfaces: self.protection.instance().linked(),
                ports: self.ports.clone(),
            };
            return (
                Reply::of(Ok(Answer::Detached(detached))),
                Some(Outcome::Detach),
            );
        }
        (Reply::of(self.answer(request)), None)
    }

    fn answer(&mut self, request: &Request) -> Result<Answer> {
        match request {
            Request::Reload {} => {
                let changes = self.reload(None)?;
                Ok(Answer::Reloaded(Reloaded {
                    config: self.plan.path.display().to_string(),
                    changes: changes.words,
                    warnings: changes.warnings,
                }))
            }
            Request::Confirm {} => Ok(Answer::Confirmed(Confirmed {
                was_unconfirmed: self.confirm()?,
            })),
            Request::Status {}
            | Request::List {}
            | Request::Grant { .. }
            | Request::Revoke { .. }
            | Request::Explain { .. }
            | Request::Detach {} => anyhow::bail!("not answered yet"),
        }
    }
}
