//! Lists the connections that the kernel tracks for stateful rules and address translation
//! (conntrack): those that this host forwards, such as to containers, and its own.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::Result;
use knock_common::packet::Protocol;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple,
        Protocol as ProtocolNumber, Status, Tuple,
    },
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::host::netlink;

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;

/// The sender and the receiver of packets, as a network interface sees them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packets {
    /// The protocol.
    pub protocol: Protocol,
    /// The address and port that they come from.
    pub source: SocketAddr,
    /// The address and port that they are sent to.
    pub target: SocketAddr,
}

/// An established connection, or an exchange of datagrams in both directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TrackedConnection {
    /// What its first packet has, before any translation.
    pub first: Packets,
    /// What replies have when they arrive, which shows the translation: without one, the ends of
    /// `first` are exchanged.
    pub reply: Packets,
}

/// Returns how many connections the kernel tracks in this network namespace, as far as that can be read;
/// 0 if it tracks none.
pub fn count() -> Option<u64> {
    match fs::read_to_string(COUNT) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) => (error.kind() == ErrorKind::NotFound).then_some(0),
    }
}

/// Hands the established connections of both families to `take`, one at a time, for at most this
/// time. Returns whether that was all of them.
///
/// Ask [`count`] first: listing loads the kernel modules for it if they are missing.
///
/// # Errors
/// This process lacks CAP_NET_ADMIN, or the kernel has no `nf_conntrack_netlink`.
pub fn list(limit: Duration, mut take: impl FnMut(TrackedConnection)) -> Result<bool> {
    let until = Instant::now() + limit;
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let request = NetfilterMessage::new(header, ConntrackMessage::Get(Vec::new()));
    let request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut is_whole = true;
    netlink::dump_while(NETLINK_NETFILTER, request, flags, |answer| {
        if Instant::now() > until {
            is_whole = false;
            return ControlFlow::Break(());
        }
        if let Some(connection) = connection(answer) {
            take(connection);
        }
        ControlFlow::Continue(())
    })?;
    Ok(is_whole)
}

/// Returns the connection that an answer describes; none if packets of both ends were not seen yet, or
/// if the connection is ending.
fn connection(answer: NetfilterMessage) -> Option<TrackedConnection> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = answer.inner else {
        return None;
    };
    let mut first = None;
    let mut reply = None;
    let mut state = None;
    let mut seen = Status::empty();
    for attribute in &attributes {
        if let ConntrackAttribute::CtaTupleOrig(tuple) = attribute {
            first = packets(tuple);
        } else if let ConntrackAttribute::CtaTupleReply(tuple) = attribute {
            reply = packets(tuple);
        } else if let ConntrackAttribute::CtaStatus(status) = attribute {
            seen = *status;
        } else if let ConntrackAttribute::CtaProtoInfo(info) = attribute {
            state = info.iter().find_map(tcp_state);
        }
    }
    let connection = TrackedConnection {
        first: first?,
        reply: reply?,
    };
    // A connection in TIME_WAIT is assured, too.
    let is_established = match connection.first.protocol {
        Protocol::Tcp => state == Some(ESTABLISHED) && seen.contains(Status::SeenReply),
        Protocol::Udp => true,
    };
    (is_established && seen.contains(Status::Assured)).then_some(connection)
}

fn tcp_state(info: &ProtoInfo) -> Option<u8> {
    let ProtoInfo::TCP(values) = info else {
        return None;
    };
    values.iter().find_map(|value| {
        if let ProtoInfoTCP::State(state) = value {
            Some(*state)
        } else {
            None
        }
    })
}

/// Returns the packets that a tuple describes; none for protocols without ports, and for SCTP and
/// others whose ports are not judged.
fn packets(tuple: &[Tuple]) -> Option<Packets> {
    let mut addresses: [Option<IpAddr>; 2] = [None; 2];
    let mut ports: [Option<u16>; 2] = [None; 2];
    let mut protocol = None;
    let [source, target] = &mut addresses;
    let [source_port, port] = &mut ports;
    for part in tuple {
        if let Tuple::Ip(values) = part {
            for value in values {
                if let IPTuple::SourceAddress(address) = value {
                    *source = Some(*address);
                } else if let IPTuple::DestinationAddress(address) = value {
                    *target = Some(*address);
                }
            }
        } else if let Tuple::Proto(values) = part {
            for value in values {
                if let ProtoTuple::Protocol(number) = value {
                    protocol = judged(*number);
                } else if let ProtoTuple::SourcePort(number) = value {
                    *source_port = Some(*number);
                } else if let ProtoTuple::DestinationPort(number) = value {
                    *port = Some(*number);
                }
            }
        }
    }
    Some(Packets {
        protocol: protocol?,
        source: SocketAddr::new((*source)?, (*source_port)?),
        target: SocketAddr::new((*target)?, (*port)?),
    })
}

fn judged(number: ProtocolNumber) -> Option<Protocol> {
    if number == ProtocolNumber::Tcp {
        Some(Protocol::Tcp)
    } else if number == ProtocolNumber::Udp {
        Some(Protocol::Udp)
    } else {
        None
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// A message of the kernel about a connection to 192.0.2.2:8080 that is translated to
    /// 172.17.0.2:80.
    const TRANSLATED: &str = "f000000000010200010000000e00000002000000340001801400018008000100c633\
        640108000200c00002021c0002800500010006000000060002009c400000060003001f9000003400028014000180\
        08000100ac11000208000200c63364011c00028005000100060000000600020000500000060003009c4000000800\
        03000000000e080008000000000008000c001cea360608000b00000000010800070000000bb7300004802c000180\
        050001000300000005000200000000000500030000000000060004000a000000060005000a0000001c0018800800\
        01000000000008000200000000000800030000000000";
    /// The same for an exchange of datagrams that is not translated.
    const DATAGRAMS: &str = "f000000000010200010000000e0000000a0000004c0001802c000180140003002001\
        0db80000000000000000000000011400040020010db80000000000000000000000021c0002800500010011000000\
        060002009c40000006000300003500004c0002802c0001801400030020010db80000000000000000000000021400\
        040020010db80000000000000000000000011c00028005000100110000000600020000350000060003009c400000\
        080003000000000e080008000000000008000c0071be46a808000b00000000010800070000000bb71c0018800800\
        01000000000008000200000000000800030000000000";
    /// The attribute with the status: confirmed, assured, and with a reply.
    const STATUS: &str = "080003000000000e";
    /// The attribute with the state ESTABLISHED.
    const STATE: &str = "0500010003000000";

    fn read(message: &str) -> Option<TrackedConnection> {
        let digits: Vec<_> = message.bytes().filter(u8::is_ascii_hexdigit).collect();
        let octets: Vec<_> = digits
            .chunks(2)
            .map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap())
            .collect();
        let mut found = None;
        for answer in netlink::messages::<NetfilterMessage>(&octets) {
            if let NetlinkPayload::InnerMessage(message) = answer.unwrap() {
                found = connection(message);
            }
        }
        found
    }

    #[test]
    fn established_connections_are_found_in_messages_of_the_kernel() {
        let changed = |from: &str, to: &str| {
            assert_eq!(TRANSLATED.matches(from).count(), 1, "{from}");
            TRANSLATED.replace(from, to)
        };
        let state = |number: u8| changed(STATE, &format!("05000100{number:02x}000000"));
        let tcp = Some((
            Protocol::Tcp,
            ["198.51.100.1:40000", "192.0.2.2:8080"],
            ["172.17.0.2:80", "198.51.100.1:40000"],
        ));
        for (name, message, expected) in [
            ("translated", TRANSLATED.to_owned(), tcp),
            (
                "datagrams",
                DATAGRAMS.to_owned(),
                Some((
                    Protocol::Udp,
                    ["[2001:db8::1]:40000", "[2001:db8::2]:53"],
                    ["[2001:db8::2]:53", "[2001:db8::1]:40000"],
                )),
            ),
            (
                "with further marks",
                changed(STATUS, "08000300000041ae"),
                tcp,
            ),
            ("not assured", changed(STATUS, "080003000000000a"), None),
            ("without a reply", changed(STATUS, "080003000000000c"), None),
            ("SYN_SENT", state(1), None),
            ("SYN_RECV", state(2), None),
            ("FIN_WAIT", state(4), None),
            ("CLOSE_WAIT", state(5), None),
            ("TIME_WAIT", state(7), None),
            ("CLOSE", state(8), None),
            ("without a state", changed(STATE, "0500090003000000"), None),
            (
                "datagrams, not assured",
                DATAGRAMS.replace(STATUS, "080003000000000a"),
                None,
            ),
            (
                "another protocol",
                TRANSLATED.replace("0500010006000000", "0500010084000000"),
                None,
            ),
        ] {
            let expected = expected.map(|(protocol, first, reply)| {
                let packets = |[source, target]: [&str; 2]| Packets {
                    protocol,
                    source: source.parse().unwrap(),
                    target: target.parse().unwrap(),
                };
                TrackedConnection {
                    first: packets(first),
                    reply: packets(reply),
                }
            });
            assert_eq!(read(&message), expected, "{name}");
        }
    }
}
