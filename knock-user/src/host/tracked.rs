//! Warns of forwarded connections that a first start cuts: only connections of the host's own
//! sockets are recorded as flows.

use std::{fs, net::IpAddr};

use knock_common::packet::Protocol;
use knock_sequence::PortSet;

use crate::host::os_error;

const TABLE: &str = "/proc/net/nf_conntrack";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Returns a warning about forwarded connections that would be cut, if there are any or they can't
/// be listed; `is_own` knows the addresses of this host.
pub fn warning(protected: &PortSet, is_own: impl Fn(IpAddr) -> bool) -> Option<String> {
    match fs::read_to_string(TABLE) {
        Ok(table) => {
            let cut = table
                .lines()
                .filter(|line| is_cut(line, protected, &is_own))
                .count();
            let plural = if cut == 1 {
                "connection"
            } else {
                "connections"
            };
            (cut > 0).then(|| {
                format!(
                    "this start cuts {cut} {plural} on protected ports that this host passes on to \
                     others, such as containers: the other end has to knock and to connect again"
                )
            })
        }
        Err(error) => {
            let count = fs::read_to_string(COUNT).ok()?;
            let count: u64 = count.trim().parse().ok().filter(|&count| count > 0)?;
            Some(format!(
                "this host passes packets on to others, such as containers, and tracks {count} \
                 connections; those among them that use protected ports are cut by this start, and \
                 how many can't be read from {TABLE}: {}",
                os_error::reason(&error, TABLE)
            ))
        }
    }
}

/// Returns whether packets of a connection arrive at a protected port and are forwarded to another
/// host.
fn is_cut(line: &str, protected: &PortSet, is_own: impl Fn(IpAddr) -> bool) -> bool {
    let protocol = if line.contains(" tcp ") {
        Protocol::Tcp
    } else if line.contains(" udp ") {
        Protocol::Udp
    } else {
        return false;
    };
    let values = |name: &'static str| {
        let words = line.split_whitespace();
        words.filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='))
    };
    // Each field appears twice: for the first packet, and for replies.
    let mut sources = values("src").filter_map(|address| address.parse().ok());
    let (Some(from), Some(to)) = (sources.next(), sources.next()) else {
        return false;
    };
    let is_local = is_own(from) || is_own(to);
    let mut ports = values("dport").filter_map(|port| port.parse().ok());
    !is_local && ports.any(|port| protected.has(protocol, port))
}

#[cfg(test)]
mod tests {
    use knock_sequence::Ports;

    use super::*;

    #[test]
    fn forwarded_connections_to_protected_ports_are_cut() {
        let own: IpAddr = "192.0.2.1".parse().unwrap();
        let protected = PortSet::new([Ports::tcp(8080)]);
        let line = |protocol: &str, first: &str, answer: &str| {
            format!(
                "ipv4     2 {protocol}      6 431999 ESTABLISHED {first} {answer} [ASSURED] mark=0 use=1"
            )
        };
        let rows = [
            (
                "to a container",
                line(
                    "tcp",
                    "src=198.51.100.1 dst=192.0.2.1 sport=1 dport=8080",
                    "src=172.17.0.2 dst=198.51.100.1 sport=80 dport=1",
                ),
                true,
            ),
            (
                "from a container, with a protected port",
                line(
                    "tcp",
                    "src=172.17.0.2 dst=198.51.100.1 sport=5 dport=443",
                    "src=198.51.100.1 dst=192.0.2.1 sport=443 dport=8080",
                ),
                true,
            ),
            (
                "to this host itself",
                line(
                    "tcp",
                    "src=198.51.100.1 dst=192.0.2.1 sport=1 dport=8080",
                    "src=192.0.2.1 dst=198.51.100.1 sport=8080 dport=1",
                ),
                false,
            ),
            (
                "from this host itself",
                line(
                    "tcp",
                    "src=192.0.2.1 dst=198.51.100.1 sport=8080 dport=443",
                    "src=198.51.100.1 dst=192.0.2.1 sport=443 dport=8080",
                ),
                false,
            ),
            (
                "another port",
                line(
                    "tcp",
                    "src=198.51.100.1 dst=192.0.2.1 sport=1 dport=80",
                    "src=172.17.0.2 dst=198.51.100.1 sport=80 dport=1",
                ),
                false,
            ),
            (
                "another protocol",
                line(
                    "udp",
                    "src=198.51.100.1 dst=192.0.2.1 sport=1 dport=8080",
                    "src=172.17.0.2 dst=198.51.100.1 sport=80 dport=1",
                ),
                false,
            ),
            (
                "something else",
                "ipv4 2 icmp 1 29 src=1.2.3.4 dst=5.6.7.8 type=8".to_owned(),
                false,
            ),
        ];
        for (name, line, expected) in rows {
            assert_eq!(
                is_cut(&line, &protected, |address| address == own),
                expected,
                "{name}"
            );
        }
    }
}
