//! What others learn of the port, and of the packets of a client.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use knock_sequence::spa::{NOISE_MOST, PACKET_LENGTH};
use knock_tests::{
    daemon::Daemon,
    namespace::text,
    net::{self, Family, Net},
    random::Random,
    server::Server,
    ssh::SSH,
};

use crate::users::{DOORS, Users};

/// The port of SPA packets, one that drops everything, and one that nothing protects.
const PORTS: [u16; 3] = [62_201, 62_202, 62_203];
const USERS: &[(&str, &str)] = &[("alice", "doors = [\"ssh\", \"wiki\"]")];

#[test]
fn a_scanner_finds_no_difference_between_the_port_and_a_silent_one() {
    type Probe = fn(&Net, Family, u16) -> String;
    let rows: [(&str, &[Family], Probe); 5] = [
        ("datagrams", &Family::ALL, datagrams),
        ("nmap -sU", &Family::ALL, |net, family, port| {
            nmap(net, family, port, &[])
        }),
        ("nmap -sU with data", &Family::ALL, |net, family, port| {
            nmap(net, family, port, &["--data-length", "72"])
        }),
        ("nmap -sUV", &[Family::V4], |net, family, port| {
            nmap(net, family, port, &["-sV", "--version-intensity", "0"])
        }),
        ("hping3", &[Family::V4], hping3),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let users = Users::new();
        let config = users.config("", USERS, &(users.fwknop("bob") + DOORS));
        let config = format!("protect = [\"udp/{}\"]\n{config}", PORTS[1]);
        let daemon = Daemon::start(&net.server, &config);
        for (name, families, probe) in rows {
            for &family in families {
                let [port, silent, open] = PORTS.map(|port| probe(net, family, port));
                assert_eq!(port, silent, "{name}, {family}");
                // A scanner that can see.
                assert_ne!(port, open, "{name}, {family}");
            }
        }
        // The port takes packets all the time.
        for family in Family::ALL {
            let host = family.server().to_string();
            users.opens(&net.client, "alice", &[&host, "--then-connect", "22"]);
        }
        daemon.stop();
    });
}

/// Packets have all kinds of lengths, and nothing in common.
#[test]
fn packets_of_a_client_are_not_alike() {
    const PACKETS: usize = 60;
    net::test(|net| {
        let users = Users::new();
        users.keygen("alice");
        let host = Family::V4.server().to_string();
        let socket = net
            .server
            .enter(|| UdpSocket::bind((Family::V4.server(), PORTS[0])))
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let packets: Vec<Vec<u8>> = (0..PACKETS)
            .map(|_| {
                users.opens(&net.client, "alice", &[&host, "--no-answer"]);
                let mut buffer = [0; 2_048];
                let length = socket.recv(&mut buffer).unwrap();
                buffer[..length].to_vec()
            })
            .collect();
        let lengths: BTreeSet<usize> = packets.iter().map(Vec::len).collect();
        let all = PACKET_LENGTH..=PACKET_LENGTH + NOISE_MOST;
        assert!(
            lengths.iter().all(|length| all.contains(length)),
            "{lengths:?}"
        );
        // Of 201 lengths, 60 packets have some 52.
        assert!(lengths.len() > 30, "{lengths:?}");
        for at in 0..PACKET_LENGTH {
            let octets: BTreeSet<u8> = packets.iter().map(|packet| packet[at]).collect();
            assert!(octets.len() > 30, "octet {at}: {octets:?}");
        }
    });
}

/// Returns what comes back for datagrams of all kinds, each from a socket of its own.
fn datagrams(net: &Net, family: Family, port: u16) -> String {
    let mut random = Random::new(7);
    let mut noise =
        |length: usize| -> Vec<u8> { (0..length).map(|_| random.next() as u8).collect() };
    let mut payloads: Vec<Vec<u8>> = [0, 1, 71, 72, 73, 140, 272, 480, 1_400, 3_000]
        .into_iter()
        .map(&mut noise)
        .collect();
    // As long as a packet of fwknop, in its alphabet.
    payloads.push(b"8BAgMEBQYHCISULp".repeat(14));
    payloads.push(vec![0; 72]);
    let (from, to) = (family.client(), family.server());
    let outcomes = net.client.enter(|| {
        let outcomes = payloads
            .iter()
            .map(|payload| answer(from, to, port, payload));
        outcomes.collect::<Vec<_>>()
    });
    format!("{outcomes:?}")
}

fn answer(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Result<usize, ErrorKind> {
    let exchange = || -> io::Result<usize> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((to, port))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket.send(payload)?;
        socket.recv(&mut [0; 2_048])
    };
    exchange().map_err(|error| error.kind())
}

/// Returns the state of a port and the reason for it.
fn nmap(net: &Net, family: Family, port: u16, arguments: &[&str]) -> String {
    let host = family.server().to_string();
    let number = port.to_string();
    let common = ["-n", "-Pn", "-sU", "--reason", "-p", &number];
    let version: &[&str] = family.pick(&[], &["-6"]);
    let arguments = [&common, version, arguments, &[&host]].concat();
    let output = net.client.run("nmap", &arguments);
    let place = format!("{port}/udp ");
    let line = output.lines().find(|line| line.starts_with(&place));
    let line = line.unwrap_or_else(|| panic!("no {place}in {output}"));
    let cells: Vec<&str> = line.split_whitespace().collect();
    format!("{} {:?}", cells[1], cells.get(3..))
}

/// Returns what it prints, without the port.
fn hping3(net: &Net, family: Family, port: u16) -> String {
    let (host, number) = (family.server().to_string(), port.to_string());
    let arguments = [
        "--udp", "-c", "3", "-i", "u20000", "-d", "72", "-p", &number, &host,
    ];
    let output = text(&net.client.try_run("hping3", &arguments));
    let lines = output
        .lines()
        .filter(|line| !line.contains("rtt=") && !line.contains("round-trip"));
    lines
        .collect::<Vec<_>>()
        .join("\n")
        .replace(&number, "PORT")
}
