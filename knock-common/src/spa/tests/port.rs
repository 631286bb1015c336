//! Packets to the port that are not of a user.

use super::*;

#[test]
fn other_packets_are_judged_by_the_other_use_of_the_port() {
    const DATA: &[u8] =
        b"QUIC, for instance, and much longer than the 72 octets that a packet of this format has";
    let group_frame = |payload: &[u8]| {
        let mut group = frame(CLIENT, payload);
        group[0] |= 1;
        group
    };
    let protected = Otherwise::Protected(SSH_NUMBER);
    let packet = sealer().seal(&CONTENT);
    for (name, otherwise, noise, to_group) in [
        ("drop", Otherwise::Drop, Reason::SpaNoise, Reason::Ordinary),
        ("pass", Otherwise::Pass, Reason::Ordinary, Reason::Ordinary),
        ("protected", protected, Reason::NoGrant, Reason::NoGrant),
    ] {
        let mut sim = host();
        let port = SpaPort {
            formats: SpaFormats::KNOCK,
            otherwise,
        };
        sim.ports
            .insert(port_index(Protocol::Udp, PORT), PortRule::spa(port));
        for payload in [DATA, b"short", b""] {
            let (reason, events) = judge(&sim, CLIENT, payload);
            assert_eq!(reason, noise, "{name}");
            assert_eq!(events.is_empty(), noise == Reason::Ordinary, "{name}");
        }
        assert_eq!(
            crate::judge(&group_frame(&packet)[..], &sim),
            to_group,
            "{name}, to a group"
        );
        assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::Opened, "{name}");
        let after = if otherwise == protected {
            Reason::Granted
        } else {
            noise
        };
        assert_eq!(judge(&sim, CLIENT, DATA).0, after, "{name}, after a grant");
    }
}

#[test]
fn a_source_that_no_host_can_have_gets_nothing() {
    for last in [
        Address::from_v4([127, 0, 0, 1]),
        Address::from_v4([0, 0, 0, 0]),
        Address::from_v4([224, 0, 0, 1]),
    ] {
        let sim = host();
        let packet = sealer().seal(&Content {
            source: Address::ANY,
            ..CONTENT
        });
        assert_eq!(judge(&sim, last, &packet).0, Reason::BadHeader, "{last:?}");
        assert!(sim.allow.entries.borrow().is_empty());
    }
}

#[test]
fn a_packet_to_a_group_or_to_no_host_is_none() {
    let packet = sealer().seal(&CONTENT);
    for (to, is_for_host) in [
        ("224.0.0.251", false),
        ("255.255.255.255", false),
        ("0.0.0.0", false),
        ("127.0.0.1", false),
        ("192.0.2.7", true),
    ] {
        let sim = host();
        let frame = knock_frame::eth().ip(CLIENT.into(), to.parse().unwrap());
        let frame = frame.datagram(40_000, PORT, &packet).bytes();
        let expected = match is_for_host {
            true => Reason::Opened,
            false => Reason::SpaNoise,
        };
        assert_eq!(crate::judge(&frame[..], &sim), expected, "{to}");
        assert_eq!(sim.allow.entries.borrow().is_empty(), !is_for_host, "{to}");
        assert_eq!(last(&sim) == STAMP, is_for_host, "{to}");
    }
}

/// The ledger and the console would otherwise miss what the owner of a key has caused.
#[test]
fn changes_by_packets_are_reported_beside_a_flood() {
    let sim = host();
    let packet = sealer().seal(&CONTENT);
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::Opened);
    for _ in 0..100 {
        assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaReplayed);
    }
    for (later, action, expected) in [
        (1, 0, Reason::Refreshed),
        (2, 1, Reason::Closed),
        (3, 0, Reason::Opened),
    ] {
        let stamp = STAMP + later;
        let packet = sealer().seal(&Content {
            stamp,
            action,
            ..CONTENT
        });
        let (reason, events) = judge(&sim, CLIENT, &packet);
        let reported: Vec<_> = events.iter().map(|event| event.reason()).collect();
        assert_eq!((reason, reported), (expected, vec![Some(expected)]));
    }
}

/// A flood is not authenticated packet by packet: that costs an HMAC each.
#[test]
fn refusals_are_reported_within_their_limit() {
    let sim = host();
    let packet = sealer().seal(&CONTENT);
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::Opened);
    let mut reported = 0;
    for _ in 0..1_000 {
        let (reason, events) = judge(&sim, CLIENT, &packet);
        assert_eq!(reason, Reason::SpaReplayed);
        reported += events.len() as u64;
    }
    assert_eq!(reported, 64);
    let suppressed = sim.stats.borrow().get(&Stat::EventsSuppressed).copied();
    assert_eq!(suppressed, Some(1_000 - reported));
}

#[test]
fn steps_survive_a_register() {
    use crate::spa::step::SpaStep::{self, Authentic, Continue, Judged, Noise, NotSpa};
    for step in Reason::ALL
        .iter()
        .map(|&reason| Judged(reason))
        .chain(Reason::ALL.iter().map(|&reason| Authentic(reason)))
        .chain([Continue, NotSpa, Noise])
    {
        assert_eq!(SpaStep::from_word(step.to_word()), step);
    }
    for word in [u64::MAX, 255, 1 << 12, 1 << 8 | 57] {
        assert_eq!(SpaStep::from_word(word), NotSpa, "{word}");
    }
}
