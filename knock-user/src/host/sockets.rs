//! Lists the host's own sockets from `/proc/net`, which, unlike `sock_diag`, needs no module and
//! exists in every kernel with TCP.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use knock_common::packet::Protocol;

/// The directory of the lists of the network namespace of this thread.
const LISTS: &str = "/proc/thread-self/net";
/// `TCP_LISTEN`.
const LISTENING: u8 = 10;
/// `TCP_CLOSE`, the state of an unconnected UDP socket.
const UNCONNECTED: u8 = 7;
/// The states in which packets of the peer still matter: `TCP_ESTABLISHED`, `TCP_SYN_RECV`,
/// `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_CLOSE_WAIT`, `TCP_LAST_ACK`, `TCP_CLOSING`,
/// `TCP_NEW_SYN_RECV`.
const CONNECTED: [u8; 8] = [1, 3, 4, 5, 8, 9, 11, 12];

/// A TCP connection of this host.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TcpConnection {
    /// The local end.
    pub local: SocketAddr,
    /// The remote end.
    pub peer: SocketAddr,
}

/// A line of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Socket {
    local: SocketAddr,
    peer: SocketAddr,
    state: u8,
}

/// Returns the TCP connections of the network namespace of this thread, of both families.
///
/// # Errors
/// The lists are missing or can't be parsed.
pub fn connections() -> Result<Vec<TcpConnection>> {
    let all = sockets(Path::new(LISTS), Protocol::Tcp).context("listing connections")?;
    let connected = all.into_iter().filter(|one| CONNECTED.contains(&one.state));
    Ok(connected
        .map(|Socket { local, peer, .. }| TcpConnection { local, peer })
        .collect())
}

/// Returns the local ends of listening TCP sockets, or of UDP sockets that accept datagrams from
/// any address.
///
/// # Errors
/// As for [`connections`].
pub fn listeners(protocol: Protocol) -> Result<Vec<SocketAddr>> {
    let wanted = match protocol {
        Protocol::Tcp => LISTENING,
        Protocol::Udp => UNCONNECTED,
    };
    let all = sockets(Path::new(LISTS), protocol).context("listing listeners")?;
    let listening = all.into_iter().filter(|one| one.state == wanted);
    Ok(listening.map(|one| one.local).collect())
}

/// Returns the sockets in the lists of a protocol. A kernel without IPv6 has one list.
fn sockets(lists: &Path, protocol: Protocol) -> Result<Vec<Socket>> {
    let mut all = Vec::new();
    let mut found = 0;
    for end in ["", "6"] {
        let path = lists.join(format!("{}{end}", protocol.name()));
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        found += 1;
        for line in text.lines().skip(1) {
            let socket = socket(line);
            all.push(socket.with_context(|| format!("parsing {}: {line:?}", path.display()))?);
        }
    }
    ensure!(
        found > 0,
        "there is no {}: is /proc mounted?",
        lists.join(protocol.name()).display()
    );
    Ok(all)
}

/// Parses `0: 0100007F:0016 0200007F:C350 01 …`: number, both ends, state.
fn socket(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, peer) = (end(words.next()?)?, end(words.next()?)?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    Some(Socket { local, peer, state })
}

/// Parses an address as 32-bit words in host byte order, and a port.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::with_capacity(16);
    for place in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(place..place + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(octets.as_slice()).ok()?).into(),
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_kernel_are_parsed() {
        for (name, line, expected) in [
            (
                "IPv4",
                "   0: 0200000A:0016 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0",
                Some(("10.0.0.2:22", "127.0.0.1:50000", 1)),
            ),
            (
                "IPv6, listening",
                "   1: B80D0120000000000000000002000000:0050 00000000000000000000000000000000:0000 0A",
                Some(("[2001:db8::2]:80", "[::]:0", 10)),
            ),
            (
                "IPv4 in IPv6",
                "  12: 0000000000000000FFFF00000200000A:0016 0000000000000000FFFF00000300000A:0017 08",
                Some(("10.0.0.2:22", "10.0.0.3:23", 8)),
            ),
            ("too short", "   0: 0200000A:0016 0100007F:C350", None),
            ("half an address", "   0: 0200:0016 0100007F:C350 01", None),
            ("no number", "   0: 0200000X:0016 0100007F:C350 01", None),
            ("empty", "", None),
        ] {
            let expected = expected.map(|(local, peer, state)| Socket {
                local: local.parse().unwrap(),
                peer: peer.parse().unwrap(),
                state,
            });
            assert_eq!(socket(line), expected, "{name}");
        }
    }

    #[test]
    fn one_missing_list_is_not_an_error() {
        const LINE: &str = "  sl  local_address\n   0: 0200000A:0016 00000000:0000 0A 0\n";
        /// Names of lists, and what is in them.
        type Lists = &'static [(&'static str, &'static str)];
        let rows: [(&str, Lists, Option<usize>); 4] = [
            ("both families", &[("tcp", LINE), ("tcp6", LINE)], Some(2)),
            ("no IPv6", &[("tcp", LINE)], Some(1)),
            ("none", &[], None),
            ("something else", &[("tcp", "x\ny\n")], None),
        ];
        for (name, files, expected) in rows {
            let directory = tempfile::tempdir().unwrap();
            for (file, text) in files {
                fs::write(directory.path().join(file), text).unwrap();
            }
            let found = sockets(directory.path(), Protocol::Tcp);
            assert_eq!(found.ok().map(|all| all.len()), expected, "{name}");
        }
    }

    #[test]
    fn both_ends_of_a_connection_are_found() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(listen).unwrap();
            let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, _) = listener.accept().unwrap();
            let connection = TcpConnection {
                local: here.local_addr().unwrap(),
                peer: there.local_addr().unwrap(),
            };
            assert!(connections().unwrap().contains(&connection), "{listen}");
        }
    }
}
