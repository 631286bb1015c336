//! Packets are those of an independent implementation, octet by octet.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use knock_sequence::spa::{Action, Channel, DoorId, PrivateKey, Request, WANT_ANSWER};

/// See the file for its columns.
const VECTORS: &str = include_str!("../../knock-common/tests/spa_vectors.txt");

/// The octets of hexadecimal digits.
fn octets(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn key(digits: &str) -> PrivateKey {
    PrivateKey::from_octets(octets(digits).try_into().unwrap())
}

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
                0 => Action::Open,
                _ => Action::Close,
            },
            answer: action & WANT_ANSWER != 0,
        };
        let channel = Channel::new(&key(client), key(host).public()).unwrap();
        assert_eq!(channel.seal(&request).to_vec(), octets(packet), "{name}");
        count += 1;
    }
    assert_eq!(count, 16);
}
