//! Packets and answers are those of an independent implementation, octet by octet.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use knock_common::reason::Reason;
use knock_sequence::spa::{
    Answer, Channel, DoorAction, DoorId, PACKET_LENGTH, PrivateKey, Request, WANT_ANSWER,
};

/// See the file for its columns.
const VECTORS: &str = include_str!("../../knock-common/tests/spa_vectors.txt");
const ANSWERS: &str = include_str!("../../knock-common/tests/spa_answers.txt");

#[test]
fn packets_are_those_of_an_independent_client() {
    let mut count = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [
            name,
            client,
            host,
            source,
            door,
            seconds,
            action,
            stamp,
            packet,
        ] = cells[..]
        else {
            panic!("{line}: nine cells");
        };
        let action = u8::from_str_radix(action.strip_prefix("0x").unwrap(), 16).unwrap();
        let request = Request {
            stamp: stamp.parse().unwrap(),
            source: Some(source.parse().unwrap()).filter(|_| source != "::"),
            door: match door {
                "-" => DoorId::FIRST,
                name => DoorId::of_name(name),
            },
            seconds: seconds.parse().unwrap(),
            action: match action & !WANT_ANSWER {
                0 => DoorAction::Open,
                _ => DoorAction::Close,
            },
            answer: action & WANT_ANSWER != 0,
        };
        let channel = Channel::new(&key(client), key(host).public()).unwrap();
        assert_eq!(channel.seal(&request).to_vec(), octets(packet), "{name}");
        count += 1;
    }
    assert_eq!(count, 16);
}

#[test]
fn answers_of_an_independent_host_are_opened() {
    let mut count = 0;
    for line in ANSWERS.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [
            name,
            client,
            host,
            tag,
            outcome,
            port,
            seconds,
            source,
            clock,
            answer,
        ] = cells[..]
        else {
            panic!("{line}: ten cells");
        };
        let expected = Answer {
            outcome: Reason::from_code(outcome.parse().unwrap()),
            port: Some(port.parse().unwrap()).filter(|&port| port != 0),
            seconds: seconds.parse().unwrap(),
            source: source.parse().unwrap(),
            host_time: clock.parse().unwrap(),
        };
        let mut packet = [0; PACKET_LENGTH];
        packet[..16].copy_from_slice(&octets(tag));
        let channel = Channel::new(&key(client), key(host).public()).unwrap();
        let opened = channel.open_answer(&packet, &octets(answer));
        assert_eq!(opened, Ok(expected), "{name}");
        count += 1;
    }
    assert_eq!(count, 9);
}

#[test]
fn each_octet_of_a_key_is_noise_and_so_is_what_follows_it() {
    let packets = packets_of_a_key(10_000);
    // Six standard deviations: 144 statistics stay below with a probability of 0.999999.
    let most = 255.0 + 6.0 * 23.0;
    for at in 0..PACKET_LENGTH {
        let octets = packets.iter().map(|packet| packet[at]);
        let alone = chi_square(octets);
        let changes = packets.windows(2).map(|pair| pair[0][at] ^ pair[1][at]);
        let changes = chi_square(changes);
        assert!(alone < most, "octet {at}: {alone}");
        assert!(changes < most, "octet {at} of packets in a row: {changes}");
    }
    let mut beginnings: Vec<_> = packets.iter().map(|packet| &packet[..8]).collect();
    beginnings.sort_unstable();
    beginnings.dedup();
    assert_eq!(beginnings.len(), packets.len(), "none begins like another");
}

/// Returns the octets of hexadecimal digits.
fn octets(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn key(digits: &str) -> PrivateKey {
    PrivateKey::from_octets(octets(digits).try_into().unwrap())
}

/// Returns packets of one key that differ in nothing but the stamp, which increases by 1 s.
fn packets_of_a_key(count: u64) -> Vec<[u8; PACKET_LENGTH]> {
    let [host, client] = [0x11, 0x22].map(|octet| PrivateKey::from_octets([octet; 32]));
    let channel = Channel::new(&client, host.public()).unwrap();
    let packet = |number| {
        channel.seal(&Request {
            stamp: 1_800_000_000_000_000_000 + number * 1_000_000_000,
            source: Some([203, 0, 113, 7].into()),
            door: DoorId::of_name("ssh"),
            seconds: 30,
            action: DoorAction::Open,
            answer: true,
        })
    };
    (0..count).map(packet).collect()
}

/// Returns the chi-square statistic of the octets; for noise it is 255 on average, with a standard deviation of 23.
fn chi_square(octets: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0_u32; 256];
    octets.for_each(|octet| counts[usize::from(octet)] += 1);
    let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
    let deviation = |&count: &u32| (f64::from(count) - expected).powi(2) / expected;
    counts.iter().map(deviation).sum()
}
