//! Receives link events: interfaces that appear, disappear and change.

use std::{collections::BTreeMap, io};

use anyhow::{Context as _, Result};
use netlink_packet_core::{DecodeError, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage};
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
    /// It went up or down.
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
    /// The socket can't be read at all. A message that is not understood or was lost is no error:
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
    /// Whether there is no more to read.
    is_all: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Message {
    Is { index: u32, name: String, up: bool },
    Gone { index: u32 },
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
        let Interface {
            index, name, up, ..
        } = interface;
        Self::Is { index, name, up }
    }
}

/// The known interfaces by number: name, and whether it is up.
#[derive(Debug, Default)]
struct KnownLinks(BTreeMap<u32, (String, bool)>);

impl KnownLinks {
    /// Applies messages, and returns the changes.
    fn apply(&mut self, messages: Vec<Message>) -> Vec<LinkChange> {
        let mut changes = Vec::new();
        for message in messages {
            match message {
                Message::Is { index, name, up } => self.is(index, name, up, &mut changes),
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

    fn is(&mut self, index: u32, name: String, up: bool, changes: &mut Vec<LinkChange>) {
        let kind = match self.0.get(&index) {
            Some((known, was_up)) if *known == name => {
                if *was_up == up {
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
        self.0.insert(index, (name.clone(), up));
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
mod tests {
    use netlink_packet_core::{NetlinkHeader, NetlinkMessage};
    use netlink_packet_route::link::{LinkAttribute, LinkFlags};

    use super::*;

    fn link(family: AddressFamily, index: u32, name: &str, up: bool) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.interface_family = family;
        link.header.index = index;
        link.header.flags.set(LinkFlags::Up, up);
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link
    }

    fn datagram(messages: Vec<RouteNetlinkMessage>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            let mut message = NetlinkMessage::new(
                NetlinkHeader::default(),
                NetlinkPayload::InnerMessage(message),
            );
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        bytes
    }

    fn is(index: u32, name: &str, up: bool) -> Message {
        let name = name.to_owned();
        Message::Is { index, name, up }
    }

    #[test]
    fn messages_about_interfaces_are_decoded() {
        use RouteNetlinkMessage::{DelLink, GetLink, NewLink};
        let unspec = AddressFamily::Unspec;
        let gone = Message::Gone { index: 7 };
        for (name, messages, expected) in [
            ("nothing", vec![], vec![]),
            (
                "there, and up",
                vec![NewLink(link(unspec, 7, "eth0", true))],
                vec![is(7, "eth0", true)],
            ),
            (
                "two in one datagram",
                vec![
                    NewLink(link(unspec, 7, "eth0", false)),
                    DelLink(link(unspec, 7, "eth0", false)),
                ],
                vec![is(7, "eth0", false), gone],
            ),
            (
                "a bridge lets its port go",
                vec![DelLink(link(AddressFamily::Bridge, 7, "eth0", true))],
                vec![],
            ),
            (
                "not about a change",
                vec![GetLink(LinkMessage::default())],
                vec![],
            ),
        ] {
            assert_eq!(decode(&datagram(messages)).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn malformed_datagrams_are_errors() {
        let right = datagram(vec![RouteNetlinkMessage::NewLink(link(
            AddressFamily::Unspec,
            7,
            "eth0",
            true,
        ))]);
        let mut too_long = right.clone();
        too_long[0] = 0xff;
        let mut empty = right.clone();
        empty[0] = 0;
        for (name, bytes) in [
            ("cut", &right[..20]),
            ("longer than the datagram", &too_long),
            ("of no length", &empty),
            ("noise", &[0xa5; 64]),
        ] {
            assert!(decode(bytes).is_err(), "{name}: {:?}", decode(bytes));
        }
    }

    fn change(index: u32, name: &str, kind: LinkChangeKind) -> LinkChange {
        let name = name.to_owned();
        LinkChange { name, index, kind }
    }

    #[test]
    fn messages_become_changes() {
        use LinkChangeKind::{Appeared, Changed, Gone, Touched};
        let gone = |index| Message::Gone { index };
        let rows = [
            (
                "a new one",
                vec![is(8, "eth1", false)],
                vec![change(8, "eth1", Appeared { up: false })],
            ),
            (
                "down and up",
                vec![is(7, "eth0", false), is(7, "eth0", true)],
                vec![
                    change(7, "eth0", Changed { up: false }),
                    change(7, "eth0", Changed { up: true }),
                ],
            ),
            (
                "something else of it",
                vec![is(7, "eth0", true)],
                vec![change(7, "eth0", Touched)],
            ),
            (
                "renamed",
                vec![is(7, "wan", true)],
                vec![
                    change(7, "eth0", Gone),
                    change(7, "wan", Appeared { up: true }),
                ],
            ),
            (
                "made anew",
                vec![gone(7), is(9, "eth0", true)],
                vec![
                    change(7, "eth0", Gone),
                    change(9, "eth0", Appeared { up: true }),
                ],
            ),
            ("one that was not known goes", vec![gone(3)], vec![]),
        ];
        for (name, messages, expected) in rows {
            let mut known = KnownLinks::default();
            known.apply(vec![is(7, "eth0", true)]);
            assert_eq!(known.apply(messages), expected, "{name}");
        }
    }
}
