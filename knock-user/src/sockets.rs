//! The host's own sockets, as the kernel lists them (`sock_diag`).

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use knock_common::packet::Protocol;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::netlink;

/// A TCP connection of this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connection {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

/// The TCP connections of the network namespace that this thread is in, of both families.
///
/// # Errors
/// The kernel does not tell.
pub fn connections() -> Result<Vec<Connection>> {
    // Everything in which packets of the peer still matter.
    let states = StateFlags::ESTABLISHED
        | StateFlags::SYN_RECV
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING;
    let mut connections = Vec::new();
    each(Protocol::Tcp, &states, |id| {
        let end = |address: std::net::IpAddr, port| SocketAddr::new(address.to_canonical(), port);
        connections.push(Connection {
            local: end(id.source_address, id.source_port),
            peer: end(id.destination_address, id.destination_port),
        });
    })
    .context("asking which connections there are")?;
    Ok(connections)
}

/// The local ends of listening TCP sockets, or of UDP sockets that take datagrams from anybody.
///
/// # Errors
/// The kernel does not tell.
pub fn listeners(protocol: Protocol) -> Result<Vec<SocketAddr>> {
    let states = match protocol {
        Protocol::Tcp => StateFlags::LISTEN,
        // An unconnected UDP socket is in this state, a connected one in ESTABLISHED.
        Protocol::Udp => StateFlags::CLOSE,
    };
    let mut listeners = Vec::new();
    each(protocol, &states, |id| {
        listeners.push(SocketAddr::new(
            id.source_address.to_canonical(),
            id.source_port,
        ));
    })
    .context("asking which ports are listened on")?;
    Ok(listeners)
}

fn each(protocol: Protocol, states: &StateFlags, mut take: impl FnMut(&SocketId)) -> Result<()> {
    let protocol = match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    };
    for (family, socket_id) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id,
        });
        netlink::dump(
            NETLINK_SOCK_DIAG,
            NetlinkMessage::new(NetlinkHeader::default(), request.into()),
            NLM_F_REQUEST | NLM_F_DUMP,
            |message| {
                if let SockDiagMessage::InetResponse(response) = message {
                    take(&response.header.socket_id);
                }
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ends_of_a_connection_are_found() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(listen).unwrap();
            let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, _) = listener.accept().unwrap();
            let connection = Connection {
                local: here.local_addr().unwrap(),
                peer: there.local_addr().unwrap(),
            };
            assert!(connections().unwrap().contains(&connection), "{listen}");
        }
    }
}
