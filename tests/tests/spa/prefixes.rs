//! Grants of SPA packets for the prefix of a source: who gets in, who can close the door again, and who can't use a
//! packet of a neighbour.

use std::net::{IpAddr, UdpSocket};

use knock_sequence::spa::{Channel, DoorAction, DoorId, Request};
use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net},
    server::Server,
    source::Source,
    ssh::SSH,
};
use serde_json::json;

use crate::{paths::now, users::Users};

const PORT: u16 = 62_201;
const USERS: &[(&str, &str)] = &[("alice", "doors = [\"ssh\"]")];
const DOOR: &str = "[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\", \"udp/62201\"]\n\
                    grant_prefix = { ipv4 = 30, ipv6 = 64 }\n";

/// Returns three sources of a family: the client, another of its prefix, and one outside.
fn sources(net: &Net, family: Family) -> [Source<'_>; 3] {
    let addresses = family.pick(
        ["198.51.100.9", "198.51.100.10", "198.51.100.12"],
        ["2001:db8:a::9", "2001:db8:a::a0", "2001:db8:a:1::1"],
    );
    addresses.map(|address| {
        let address: IpAddr = address.parse().unwrap();
        net.source(address, family.server())
    })
}

/// Sends a packet for the address of `named`, or for that of the sender.
fn send(users: &Users, from: &Source<'_>, named: Option<&Source<'_>>) -> Vec<u8> {
    let named = named.map_or_else(|| "::".to_owned(), Source::name);
    let packet = users.packet("alice", &named, "ssh", now());
    resend(from, &packet);
    packet
}

fn resend(from: &Source<'_>, packet: &[u8]) {
    let sent = from
        .namespace
        .enter(|| UdpSocket::bind((from.from, 0))?.send_to(packet, (from.to, PORT)));
    assert_eq!(sent.unwrap(), packet.len());
}

/// The port of SPA packets is a port of the door too: what is no packet gets in with a grant, as at other ports.
#[test]
fn a_packet_opens_for_the_prefix_of_its_address() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]).and_udp(&net.server, PORT);
        let users = Users::new();
        let daemon = Daemon::start(
            &net.server,
            &users.config("otherwise = \"pass\"", USERS, DOOR),
        );
        for family in Family::ALL {
            let [client, inside, outside] = sources(net, family);
            let covered = family.pick("198.51.100.8/30", "2001:db8:a::/64");
            for (row, named) in [
                ("an unbound packet", None),
                ("a bound packet", Some(&client)),
            ] {
                let row = format!("{row}, {family}");
                let finds = |open: [bool; 3]| {
                    for (source, open) in [&client, &inside, &outside].into_iter().zip(open) {
                        let row = format!("{row}, {}", source.name());
                        source.finds(open, SSH, &row);
                        assert_eq!(source.has_udp_echo(PORT), open, "{row}: a datagram");
                    }
                };
                finds([false; 3]);
                let packet = send(&users, &client, named);
                let opened = json!({"event": "opened", "source": covered, "user": "alice"});
                daemon.wait_for_event(&opened);
                finds([true, true, false]);
                resend(&inside, &packet);
                let replayed = json!({"reason": "spa-replayed", "source": inside.name()});
                daemon.wait_for_event(&replayed);

                let private = users.private("alice").parse().unwrap();
                let host = users.host.parse().unwrap();
                let channel = Channel::new(&private, &host).unwrap();
                let close = |from: &Source<'_>| {
                    let packet = channel.seal(&Request {
                        stamp: now(),
                        source: None,
                        door: DoorId::FIRST,
                        seconds: 0,
                        action: DoorAction::Close,
                        answer: false,
                    });
                    resend(from, &packet);
                };
                close(&outside);
                finds([true, true, false]);
                close(&inside);
                finds([false; 3]);
            }
            // A neighbour can't use a packet that names the client, although the grant would cover both.
            let taken = users.packet("alice", &client.name(), "ssh", now());
            resend(&inside, &taken);
            daemon.wait_for_event(&json!({"reason": "spa-elsewhere", "source": inside.name()}));
            client.finds_closed(SSH, "whose packet was taken");
        }
        daemon.stop();
    });
}
