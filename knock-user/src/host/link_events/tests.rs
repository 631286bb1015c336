use netlink_packet_core::{NetlinkHeader, NetlinkMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};

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
    of_layer(
        index,
        name,
        up,
        LinkMessage::default().header.link_layer_type,
    )
}

fn of_layer(index: u32, name: &str, up: bool, layer: LinkLayerType) -> Message {
    Message::Is {
        index,
        name: name.to_owned(),
        state: LinkFacts { up, layer },
    }
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
            "another link-layer type",
            vec![of_layer(7, "eth0", true, LinkLayerType::Infiniband)],
            vec![change(7, "eth0", Changed { up: true })],
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
            "created again",
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
