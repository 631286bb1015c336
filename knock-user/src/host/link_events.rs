//! Receives link events: interfaces that appear, disappear and change.

use std::{collections::BTreeMap, io};

use anyhow::{Context as _, Result};
use netlink_packet_core::{DecodeError, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkLayerType, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc::ENOBUFS;
use tokio::io::{Interest, unix::AsyncFd};

use crate::host::{
    interface::{self, Interface},
    netlink,
};

/// `RTMGRP_LINK`, the bit of `RTNLGRP_LINK`.
const GROUP: u32 = 1;
/// The most datagrams that are read before other tasks run.
const BATCH: usize = 256;

/// A change of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkChange {
    /// Its name.
    pub name: String,
    /// Its number in this network namespace.
    pub index: u32,
    /// The kind of change.
    pub kind: LinkChangeKind,
}

/// The kinds of changes. A renamed interface is gone under its old name and appears under its new
/// one, with the same number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkChangeKind {
    /// It exists. If events were lost, this is reported for all existing interfaces: any of them
    /// may be a new one with an old number.
    Appeared {
        /// Whether it is up.
        up: bool,
    },
    /// It went up or down, or its link-layer type changed.
    Changed {
        /// Whether it is up.
        up: bool,
    },
    /// The kernel reported it again with the same name and state: its MTU, carrier or another
    /// property changed, or its driver announced it.
    Touched,
    /// It no longer exists in this network namespace.
    Gone,
}

/// Watches the interfaces of the network namespace in which it was opened.
#[derive(Debug)]
pub struct LinkWatch {
    socket: AsyncFd<Socket>,
    known: KnownLinks,
    /// Whether messages were lost or not understood.
    is_behind: bool,
}

impl LinkWatch {
    /// Starts to watch. It must be called inside a tokio runtime. Later changes are reported: open
    /// it before listing the interfaces.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
        socket
            .bind(&SocketAddr::new(0, GROUP))
            .context("listening for changes of interfaces")?;
        socket
            .set_non_blocking(true)
            .context("reading a netlink socket without waiting")?;
        let mut known = KnownLinks::default();
        known.apply_list(interface::list()?);
        Ok(Self {
            socket: readable(socket)?,
            known,
            is_behind: false,
        })
    }

    /// Waits for at least one change. It is cancel safe: no change is lost.
    ///
    /// # Errors
    /// The socket can't be read at all. A message that is not understood or was lost is not an error:
    /// all interfaces are listed again.
    pub async fn changed(&mut self) -> Result<Vec<LinkChange>> {
        loop {
            let mut ready = self
                .socket
                .readable_mut()
                .await
                .context("waiting for changes of interfaces")?;
            // No await point follows, so what is read is also returned.
            let batch = read_batch(ready.get_inner())?;
            if batch.is_all {
                ready.clear_ready();
            }
            self.is_behind |= batch.is_behind;
            let changes = if !self.is_behind {
                self.known.apply(batch.messages)
            } else if batch.is_all {
                let all = interface::list()?;
                self.is_behind = false;
                self.known.apply_list(all)
            } else {
                // Messages that are still queued are older than the list below.
                continue;
            };
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe because a descriptor could be closed; a socket closes its own when it is dropped"
)]
fn readable(socket: Socket) -> Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE).context("waiting for changes of interfaces")
}

#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    /// Whether some were lost or not understood.
    is_behind: bool,
    /// Whether the socket is drained.
    is_all: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Message {
    Is {
        index: u32,
        name: String,
        state: LinkFacts,
    },
    Gone {
        index: u32,
    },
}

/// Reads a batch of queued messages.
fn read_batch(socket: &Socket) -> Result<Batch> {
    let mut batch = Batch::default();
    for _ in 0..BATCH {
        let mut datagram = Vec::with_capacity(netlink::DATAGRAM);
        match socket.recv_from(&mut datagram, 0) {
            // Not from the kernel.
            Ok((_, from)) if from.port_number() != 0 => {}
            Ok(_) => match decode(&datagram) {
                Ok(messages) => batch.messages.extend(messages),
                Err(_) => batch.is_behind = true,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                batch.is_all = true;
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The queue overflowed: netlink_overrun().
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => batch.is_behind = true,
            Err(error) => return Err(error).context("reading changes of interfaces"),
        }
    }
    Ok(batch)
}

/// Returns the messages of a datagram that are about interfaces.
fn decode(datagram: &[u8]) -> Result<Vec<Message>, DecodeError> {
    let mut found = Vec::new();
    for payload in netlink::messages(datagram) {
        let NetlinkPayload::InnerMessage(message) = payload? else {
            continue;
        };
        if let RouteNetlinkMessage::NewLink(link) = &message
            && is_about_itself(link)
        {
            found.extend(interface::described(link).map(Message::from));
        } else if let RouteNetlinkMessage::DelLink(link) = &message
            && is_about_itself(link)
        {
            found.push(Message::Gone {
                index: link.header.index,
            });
        }
    }
    Ok(found)
}

/// Returns whether the message is about the interface itself. A bridge announces its ports in the
/// same form: an interface that leaves it is not gone.
fn is_about_itself(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}

impl From<Interface> for Message {
    fn from(interface: Interface) -> Self {
        Self::Is {
            index: interface.index,
            name: interface.name,
            state: LinkFacts {
                up: interface.up,
                layer: interface.layer,
            },
        }
    }
}

/// The known interfaces by number: name and state.
#[derive(Debug, Default)]
struct KnownLinks(BTreeMap<u32, (String, LinkFacts)>);

/// The state of an interface whose changes are more than a touch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct LinkFacts {
    up: bool,
    layer: LinkLayerType,
}

impl KnownLinks {
    /// Applies messages, and returns the changes.
    fn apply(&mut self, messages: Vec<Message>) -> Vec<LinkChange> {
        let mut changes = Vec::new();
        for message in messages {
            match message {
                Message::Is { index, name, state } => self.is(index, name, state, &mut changes),
                Message::Gone { index } => self.gone(index, &mut changes),
            }
        }
        changes
    }

    /// Applies a list of all interfaces: returns which are gone, and all others as appeared.
    fn apply_list(&mut self, all: Vec<Interface>) -> Vec<LinkChange> {
        let mut changes = Vec::new();
        for index in self.0.keys().copied().collect::<Vec<_>>() {
            self.gone(index, &mut changes);
        }
        // Interfaces that still exist are not reported as gone.
        changes.retain(|gone| {
            !all.iter()
                .any(|here| here.index == gone.index && here.name == gone.name)
        });
        changes.extend(self.apply(all.into_iter().map(Message::from).collect()));
        changes
    }

    fn is(&mut self, index: u32, name: String, state: LinkFacts, changes: &mut Vec<LinkChange>) {
        let up = state.up;
        let kind = match self.0.get(&index) {
            Some((known, before)) if *known == name => {
                if *before == state {
                    LinkChangeKind::Touched
                } else {
                    LinkChangeKind::Changed { up }
                }
            }
            Some(_) => {
                self.gone(index, changes);
                LinkChangeKind::Appeared { up }
            }
            None => LinkChangeKind::Appeared { up },
        };
        self.0.insert(index, (name.clone(), state));
        changes.push(LinkChange { name, index, kind });
    }

    fn gone(&mut self, index: u32, changes: &mut Vec<LinkChange>) {
        if let Some((name, _)) = self.0.remove(&index) {
            let kind = LinkChangeKind::Gone;
            changes.push(LinkChange { name, index, kind });
        }
    }
}

#[cfg(test)]
mod tests;
