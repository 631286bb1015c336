//! Notices that this machine's address changed.
//!
//! On Linux the kernel reports changes of addresses and routes; elsewhere, and where that is not permitted, as on
//! Android, the loop looks every few seconds.

use super::KeepEvent;
use crate::destination::Destination;
use std::net::IpAddr;
use std::sync::mpsc::Sender;

/// Starts a thread that sends [`KeepEvent::Network`] whenever an address or a route may have changed.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn watch(events: Sender<KeepEvent>) {
    use nix::errno::Errno;
    use nix::sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    };
    use std::os::fd::AsRawFd as _;
    use std::thread;

    // `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and `RTMGRP_IPV6_ROUTE` of linux/rtnetlink.h,
    // which libc has on Linux but not on Android.
    const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
    let opened = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .and_then(|socket| {
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(socket)
    });
    // Without the reports the loop looks by itself.
    let Ok(socket) = opened else { return };
    thread::spawn(move || {
        // The content does not matter: the routing table has the result.
        let mut buffer = [0; 4096];
        loop {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                // Reports were lost.
                Ok(_) | Err(Errno::ENOBUFS) => {
                    if events.send(KeepEvent::Network).is_err() {
                        return;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    });
}

/// Starts nothing: the loop looks by itself.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn watch(_events: Sender<KeepEvent>) {}

/// The result of a look at the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressChange {
    /// Nothing that matters.
    None,
    /// There is no route to the host any longer.
    Lost,
    /// Packets to the host have another source now.
    Moved {
        /// The address before.
        from: IpAddr,
        /// The address now.
        to: IpAddr,
    },
    /// There is a route again. The network may be another one, even if the address is the same.
    Back(IpAddr),
}

/// This machine's addresses, as packets to the host have them.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnAddresses {
    destinations: Vec<Destination>,
    known: Vec<Option<IpAddr>>,
    is_lost: bool,
}

impl OwnAddresses {
    /// Reads the addresses for packets to these destinations.
    pub(super) fn new(destinations: Vec<Destination>) -> Self {
        let known = read(&destinations);
        let is_lost = is_lost(&known);
        Self {
            destinations,
            known,
            is_lost,
        }
    }

    /// Returns whether no destination can be reached.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Looks again.
    pub(super) fn look(&mut self) -> AddressChange {
        let now = read(&self.destinations);
        self.compare(now)
    }

    fn compare(&mut self, now: Vec<Option<IpAddr>>) -> AddressChange {
        if is_lost(&now) {
            let was_lost = std::mem::replace(&mut self.is_lost, true);
            // The previous addresses are kept, to name them later.
            return match was_lost || now.is_empty() {
                true => AddressChange::None,
                false => AddressChange::Lost,
            };
        }
        let was_lost = std::mem::take(&mut self.is_lost);
        let known = std::mem::replace(&mut self.known, now);
        // A family that comes or goes is a change, too: the host opens for each address.
        let mut pairs = known.iter().zip(&self.known);
        let moved = pairs.find(|(before, now)| now.is_some() && before != now);
        let first = self.known.iter().flatten().next().copied();
        match (moved, first) {
            (Some((&Some(from), &Some(to))), _) => AddressChange::Moved { from, to },
            (Some((_, &Some(to))), _) => AddressChange::Back(to),
            (_, Some(to)) if was_lost => AddressChange::Back(to),
            (_, _) => AddressChange::None,
        }
    }
}

fn read(destinations: &[Destination]) -> Vec<Option<IpAddr>> {
    let own = |destination: &Destination| destination.own_address().ok();
    destinations.iter().map(own).collect()
}

fn is_lost(addresses: &[Option<IpAddr>]) -> bool {
    addresses.iter().all(Option::is_none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_of_the_source_of_packets() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let [home, other, v6] = ["192.0.2.7", "198.51.100.7", "2001:db8::7"].map(ip);
        let moved = AddressChange::Moved {
            from: home,
            to: other,
        };
        type Row<'a> = (
            &'a str,
            Vec<Option<IpAddr>>,
            Vec<(Vec<Option<IpAddr>>, AddressChange)>,
        );
        let rows: [Row<'_>; 8] = [
            (
                "the same",
                vec![Some(home)],
                vec![(vec![Some(home)], AddressChange::None)],
            ),
            (
                "another",
                vec![Some(home)],
                vec![(vec![Some(other)], moved)],
            ),
            (
                "lost, once",
                vec![Some(home)],
                vec![
                    (vec![None], AddressChange::Lost),
                    (vec![None], AddressChange::None),
                ],
            ),
            (
                "lost, and the same again",
                vec![Some(home)],
                vec![
                    (vec![None], AddressChange::Lost),
                    (vec![Some(home)], AddressChange::Back(home)),
                ],
            ),
            (
                "lost, and another",
                vec![Some(home)],
                vec![
                    (vec![None], AddressChange::Lost),
                    (vec![Some(other)], moved),
                ],
            ),
            (
                "one of two families lost",
                vec![Some(home), Some(v6)],
                vec![(vec![Some(home), None], AddressChange::None)],
            ),
            (
                "the other family is there, too",
                vec![Some(home), None],
                vec![(vec![Some(home), Some(v6)], AddressChange::Back(v6))],
            ),
            (
                "no destination",
                vec![],
                vec![(vec![], AddressChange::None)],
            ),
        ];
        for (name, known, looks) in rows {
            let mut own = OwnAddresses {
                destinations: Vec::new(),
                is_lost: is_lost(&known),
                known,
            };
            for (now, change) in looks {
                assert_eq!(own.compare(now), change, "{name}");
            }
        }
    }
}
