//! Every shape of frame, each with the expected result of the parser.
//!
//! One table serves the parser alone and the program in the kernel. All frames are for port 22,
//! which that program protects.

use knock_common::{
    Reason,
    packet::{
        Protocol,
        flag::{ACK, SYN},
    },
};
use knock_frame::{Frame, eth};

/// A frame and the expected result of the parser.
#[derive(Debug)]
pub struct FrameShape {
    /// The property that distinguishes it.
    pub name: &'static str,
    /// The frame.
    pub frame: Frame,
    /// The protocol and the TCP flags, or the reason for which the parser rejects it.
    pub read: Result<(Protocol, u8), Reason>,
}

const A: &str = "192.0.2.1";
const B: &str = "192.0.2.2";
const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8::2";

const TCP: Result<(Protocol, u8), Reason> = Ok((Protocol::Tcp, SYN));
const UDP: Result<(Protocol, u8), Reason> = Ok((Protocol::Udp, 0));

fn v4() -> Frame {
    eth().ip4(A, B)
}

fn v6() -> Frame {
    eth().ip6(A6, B6)
}

/// Returns a TCP header to the protected port.
fn syn(frame: Frame) -> Frame {
    frame.tcp(40_000, 22, SYN)
}

/// Returns a UDP header to the protected port.
fn datagram(frame: Frame) -> Frame {
    frame.udp(40_000, 22)
}

/// Returns this many destination-options headers.
fn chain(headers: usize) -> Frame {
    (0..headers).fold(v6(), |frame, _| frame.dest_opts(0))
}

/// Returns all shapes.
pub fn all() -> Vec<FrameShape> {
    let mut shapes = Vec::new();
    let mut add = |name, frame, read| shapes.push(FrameShape { name, frame, read });

    add("TCP over IPv4", syn(v4()), TCP);
    add("UDP over IPv4", datagram(v4()), UDP);
    add("TCP over IPv6", syn(v6()), TCP);
    add("UDP over IPv6", datagram(v6()), UDP);
    let acked = v4().tcp(40_000, 22, ACK);
    add("other flags", acked, Ok((Protocol::Tcp, ACK)));

    add("ARP", eth().arp(), Err(Reason::NotIp));
    add("no ethertype we know", eth(), Err(Reason::NotIp));
    add(
        "ARP behind a VLAN tag",
        eth().vlan(7).arp(),
        Err(Reason::NotIp),
    );
    add("ICMP", v4().icmp(), Err(Reason::OtherProtocol));
    add("ICMPv6", v6().icmp(), Err(Reason::OtherProtocol));
    add(
        "SCTP over IPv4",
        v4().sctp(40_000, 22),
        Err(Reason::OtherProtocol),
    );
    add(
        "SCTP over IPv6",
        v6().sctp(40_000, 22),
        Err(Reason::OtherProtocol),
    );
    add(
        "no next header",
        v6().ip_byte(6, 59),
        Err(Reason::OtherProtocol),
    );
    // Over IPv4 they are protocols that no stack looks behind.
    add("AH over IPv4", v4().ah(1), Err(Reason::OtherProtocol));
    add(
        "IPv6 in IPv4",
        v4().ip_byte(9, 41),
        Err(Reason::OtherProtocol),
    );

    add("VLAN, IPv4", syn(eth().vlan(7).ip4(A, B)), TCP);
    add("VLAN, IPv6", syn(eth().vlan(7).ip6(A6, B6)), TCP);
    add("802.1ad alone", syn(eth().qinq(7).ip4(A, B)), TCP);
    add("QinQ, IPv4", syn(eth().qinq(8).vlan(7).ip4(A, B)), TCP);
    add(
        "QinQ, IPv6",
        datagram(eth().qinq(8).vlan(7).ip6(A6, B6)),
        UDP,
    );
    add("two 802.1Q tags", syn(eth().vlan(8).vlan(7).ip4(A, B)), TCP);
    let third = eth().qinq(9).vlan(8).vlan(7).ip4(A, B);
    add("a third tag", syn(third), Err(Reason::VlanTooDeep));
    let third = eth().qinq(9).qinq(8).qinq(7).ip6(A6, B6);
    add("a third 802.1ad tag", syn(third), Err(Reason::VlanTooDeep));

    add("one word of options", syn(v4().options(1)), TCP);
    add("ten words of options", syn(v4().options(10)), TCP);
    add("UDP behind options", datagram(v4().options(3)), UDP);
    add(
        "options behind two tags",
        syn(eth().qinq(8).vlan(7).ip4(A, B).options(10)),
        TCP,
    );
    add(
        "header length 0",
        syn(v4().ip_byte(0, 0x40)),
        Err(Reason::BadHeader),
    );
    add(
        "header length 4",
        syn(v4().ip_byte(0, 0x44)),
        Err(Reason::BadHeader),
    );
    add(
        "version 6 as IPv4",
        syn(v4().ip_byte(0, 0x65)),
        Err(Reason::BadHeader),
    );
    add(
        "version 0 as IPv4",
        syn(v4().ip_byte(0, 0x05)),
        Err(Reason::BadHeader),
    );
    add(
        "version 4 as IPv6",
        syn(v6().ip_byte(0, 0x45)),
        Err(Reason::BadHeader),
    );
    add(
        "version 15 as IPv6",
        syn(v6().ip_byte(0, 0xf0)),
        Err(Reason::BadHeader),
    );

    add("hop-by-hop options", syn(v6().hop_by_hop()), TCP);
    add("destination options", syn(v6().dest_opts(0)), TCP);
    add("long destination options", syn(v6().dest_opts(30)), TCP);
    add("longest destination options", syn(v6().dest_opts(255)), TCP);
    add("routing header", syn(v6().routing()), TCP);
    add("authentication header", syn(v6().ah(1)), TCP);
    add("long authentication header", datagram(v6().ah(4)), UDP);
    let usual = v6().hop_by_hop().dest_opts(0).routing().ah(4).dest_opts(1);
    add("one of each kind", syn(usual), TCP);
    add("five extension headers", syn(chain(5)), TCP);
    add("six extension headers", syn(chain(6)), TCP);
    add("six of them, then UDP", datagram(chain(6)), UDP);
    add(
        "seven extension headers",
        syn(chain(7)),
        Err(Reason::ExtensionsTooLong),
    );
    add(
        "seven, the last a fragment's",
        syn(chain(6).fragment6(0, false)),
        Err(Reason::ExtensionsTooLong),
    );
    add(
        "seven, the last AH",
        syn(chain(6).ah(1)),
        Err(Reason::ExtensionsTooLong),
    );
    add(
        "seven, the last routing",
        syn(chain(6).routing()),
        Err(Reason::ExtensionsTooLong),
    );
    add(
        "seven, the last hop-by-hop",
        syn(chain(6).hop_by_hop()),
        Err(Reason::ExtensionsTooLong),
    );
    add(
        "six of them, then ICMPv6",
        chain(6).icmp(),
        Err(Reason::OtherProtocol),
    );

    add("IPv4, don't fragment", syn(v4().ip_byte(6, 0x40)), TCP);
    add("IPv4, first fragment", syn(v4().fragment(0, true)), TCP);
    add(
        "IPv4, second fragment",
        syn(v4().fragment(1, true)),
        Err(Reason::LaterFragment),
    );
    add(
        "IPv4, last fragment",
        syn(v4().fragment(100, false)),
        Err(Reason::LaterFragment),
    );
    add(
        "IPv4, furthest fragment",
        syn(v4().fragment(0x1fff, false)),
        Err(Reason::LaterFragment),
    );
    add(
        "IPv4, fragment without any payload",
        v4().ip_byte(9, 6).fragment(1, false),
        Err(Reason::LaterFragment),
    );
    add(
        "IPv4, fragment with half a TCP header",
        syn(v4().fragment(0, true)).truncate(12),
        Err(Reason::TinyFragment),
    );
    add(
        "IPv4, fragment one octet short",
        syn(v4().fragment(0, true)).truncate(1),
        Err(Reason::TinyFragment),
    );
    add(
        "IPv4, fragment with half a UDP header",
        datagram(v4().fragment(0, true)).truncate(4),
        Err(Reason::TinyFragment),
    );
    add(
        "IPv6, whole in a fragment header",
        syn(v6().fragment6(0, false)),
        TCP,
    );
    add("IPv6, first fragment", syn(v6().fragment6(0, true)), TCP);
    add(
        "IPv6, first fragment of UDP",
        datagram(v6().fragment6(0, true)),
        UDP,
    );
    add(
        "IPv6, second fragment",
        syn(v6().fragment6(1, true)),
        Err(Reason::LaterFragment),
    );
    add(
        "IPv6, last fragment",
        syn(v6().fragment6(0x1fff, false)),
        Err(Reason::LaterFragment),
    );
    add(
        "IPv6, fragment with half a TCP header",
        syn(v6().fragment6(0, true)).truncate(12),
        Err(Reason::TinyFragment),
    );
    add(
        "IPv6, fragment that ends before TCP",
        syn(v6().fragment6(0, true)).truncate(20),
        Err(Reason::TinyFragment),
    );
    add(
        "IPv6, fragment that ends in options",
        v6().fragment6(0, true).dest_opts(0).truncate(7),
        Err(Reason::TinyFragment),
    );
    add(
        "IPv6, options behind the fragment header",
        syn(v6().fragment6(0, true).dest_opts(0)),
        TCP,
    );
    add(
        "IPv6, cut whole in a fragment header",
        syn(v6().fragment6(0, false)).truncate(1),
        Err(Reason::Truncated),
    );

    add(
        "ends in the TCP header",
        syn(v4()).truncate(1),
        Err(Reason::Truncated),
    );
    add(
        "ends before the TCP header",
        syn(v4()).truncate(20),
        Err(Reason::Truncated),
    );
    add(
        "ends in the UDP header",
        datagram(v4()).truncate(1),
        Err(Reason::Truncated),
    );
    add(
        "ends in the options",
        syn(v4().options(4)).truncate(24),
        Err(Reason::Truncated),
    );
    add(
        "ends in the IPv4 header",
        v4().truncate(11),
        Err(Reason::Truncated),
    );
    add(
        "ends before the IPv4 header",
        v4().truncate(20),
        Err(Reason::Truncated),
    );
    add(
        "ends in the first tag",
        eth().vlan(7).truncate(1),
        Err(Reason::Truncated),
    );
    add(
        "ends in the second tag",
        eth().qinq(8).vlan(7).truncate(2),
        Err(Reason::Truncated),
    );
    add(
        "ends in the IPv6 header",
        v6().truncate(34),
        Err(Reason::Truncated),
    );
    add(
        "ends before the IPv6 header",
        v6().truncate(40),
        Err(Reason::Truncated),
    );
    add(
        "ends in TCP over IPv6",
        syn(v6()).truncate(1),
        Err(Reason::Truncated),
    );
    add(
        "ends in the hop-by-hop options",
        v6().hop_by_hop().truncate(7),
        Err(Reason::Truncated),
    );
    add(
        "ends behind long options' length",
        v6().dest_opts(200).truncate(1000),
        Err(Reason::Truncated),
    );
    add(
        "ends in the fragment header",
        v6().fragment6(0, true).truncate(5),
        Err(Reason::Truncated),
    );
    add(
        "ends in the authentication header",
        v6().ah(1).truncate(11),
        Err(Reason::Truncated),
    );
    add(
        "ends in the Ethernet header",
        eth().truncate(1),
        Err(Reason::Truncated),
    );
    add("is empty", eth().truncate(14), Err(Reason::Truncated));
    shapes
}
