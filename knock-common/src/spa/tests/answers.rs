use std::vec::Vec;

use super::*;
use crate::{
    answer::{Memory, rewrite_with},
    decide,
    judge::FrameAction,
};

const ASKING: Content = Content {
    action: 0x80,
    ..CONTENT
};

#[test]
fn an_answer_reports_the_outcome() {
    let others = SpaKey::FOR_OTHERS;
    for (name, flags, content, reason, port, seconds) in [
        ("opened", 0, ASKING, Reason::Opened, 22, 30),
        (
            "as long as allowed",
            0,
            Content {
                seconds: 9_999,
                ..ASKING
            },
            Reason::Opened,
            22,
            600,
        ),
        (
            "closed",
            0,
            Content {
                action: 0x81,
                ..ASKING
            },
            Reason::Closed,
            22,
            0,
        ),
        (
            "a door of others",
            0,
            Content {
                door: OTHERS,
                ..ASKING
            },
            Reason::SpaNotAllowed,
            0,
            0,
        ),
        (
            "another address",
            0,
            Content {
                source: OTHER,
                ..ASKING
            },
            Reason::SpaElsewhere,
            0,
            0,
        ),
        (
            "for another address",
            others,
            Content {
                source: OTHER,
                ..ASKING
            },
            Reason::Opened,
            22,
            30,
        ),
        (
            "reserved octets",
            0,
            Content {
                reserved: [0, 1, 0],
                ..ASKING
            },
            Reason::SpaUnreadable,
            0,
            0,
        ),
        (
            "an hour ago",
            0,
            Content {
                stamp: STAMP - 3_600 * SECOND,
                ..ASKING
            },
            Reason::SpaStale,
            0,
            0,
        ),
        (
            "in an hour",
            0,
            Content {
                stamp: STAMP + 3_600 * SECOND,
                ..ASKING
            },
            Reason::SpaStale,
            0,
            0,
        ),
    ] {
        let sim = answering(flags);
        let packet = sealer().seal(&content);
        let expected = AnswerContent {
            reason,
            port,
            seconds,
            source: CLIENT,
            host_time: STAMP,
        };
        assert_eq!(
            answer(&sim, CLIENT, &packet),
            (reason, Some(expected)),
            "{name}"
        );
        // A packet is answered once, unless its stamp is in the future: such a stamp can't be used up.
        let (again, answered) = answer(&sim, CLIENT, &packet);
        let is_ahead = content.stamp > STAMP;
        assert_eq!(answered.is_some(), is_ahead, "{name}: {again:?}");
        assert!(last(&sim) <= STAMP, "{name}");
    }
    let (_, answered) = answer(
        &answering(0),
        V6,
        &sealer().seal(&Content {
            source: V6,
            ..ASKING
        }),
    );
    assert_eq!(answered.map(|answered| answered.source), Some(V6));
}

/// Each copy of such a packet is answered, and the last one opens the door, but no two bodies are hidden alike.
#[test]
fn answers_to_one_packet_are_hidden_with_octets_of_their_own() {
    let sim = answering(0);
    let ahead = Content {
        stamp: STAMP + 3_600 * SECOND,
        source: Address::ANY,
        ..ASKING
    };
    let packet = sealer().seal(&ahead);
    let mut used: Vec<(&str, [u8; 32])> = Vec::new();
    for (name, seconds, source, expected) in [
        ("at once", 0, CLIENT, Reason::SpaStale),
        ("from another source", 0, OTHER, Reason::SpaStale),
        ("later", 60, CLIENT, Reason::SpaStale),
        ("when its time comes", 3_600, CLIENT, Reason::Opened),
    ] {
        sim.now.set(BOOT + seconds * SECOND);
        let (reason, sent) = sent_answer(&sim, source, &packet);
        assert_eq!(reason, expected, "{name}");
        let sent = sent.unwrap_or_else(|| panic!("{name}: no answer"));
        let body = sealer().open_answer(&packet, &sent).unwrap();
        let octets = std::array::from_fn(|at| sent[16 + at] ^ body[at]);
        for (before, others) in &used {
            assert_ne!(&octets, others, "{name}, {before}");
        }
        used.push((name, octets));
    }
    assert_eq!(
        sent_answer(&sim, CLIENT, &packet),
        (Reason::SpaReplayed, None)
    );
    // The bodies are equal, so the answers are equal: an observer learns no more than that.
    let at_once = || {
        let sim = answering(0);
        sent_answer(&sim, CLIENT, &packet)
    };
    assert_eq!(at_once(), at_once());
}

#[test]
fn a_changed_answer_does_not_open() {
    let packet = sealer().seal(&ASKING);
    let (_, sent) = sent_answer(&answering(0), CLIENT, &packet);
    let sent = sent.unwrap();
    assert!(sealer().open_answer(&packet, &sent).is_some());
    for bit in 0..8 * sent.len() {
        let mut changed = sent;
        changed[bit / 8] ^= 1 << (bit % 8);
        let opened = sealer().open_answer(&packet, &changed);
        assert_eq!(opened, None, "bit {bit}");
    }
    let other = sealer().seal(&Content {
        stamp: STAMP + 1,
        ..ASKING
    });
    assert_eq!(sealer().open_answer(&other, &sent), None, "another packet");
}

#[test]
fn no_other_source_is_answered() {
    let forger = Sealer {
        mac: hmac_sha256::HmacKey::new(b"another"),
        ..sealer()
    };
    let stale = STAMP - 3_600 * SECOND;
    for (name, packet) in [
        ("not asked for", sealer().seal(&CONTENT)),
        (
            "not asked for and stale",
            sealer().seal(&Content {
                stamp: stale,
                ..CONTENT
            }),
        ),
        ("forged", forger.seal(&ASKING)),
        (
            "forged and stale",
            forger.seal(&Content {
                stamp: stale,
                ..ASKING
            }),
        ),
        ("noise", [7; PACKET_BYTES]),
    ] {
        let (reason, answered) = answer(&answering(0), CLIENT, &packet);
        assert_eq!(answered, None, "{name}: {reason:?}");
    }
    let sim = answering(0);
    sim.spa_last.entries.borrow()[&sealer().id].set(STAMP);
    let (reason, answered) = answer(&sim, CLIENT, &sealer().seal(&ASKING));
    assert_eq!((reason, answered), (Reason::SpaReplayed, None));
    // A stale packet that was used before.
    let packet = sealer().seal(&Content {
        stamp: stale,
        ..ASKING
    });
    assert_eq!(answer(&sim, CLIENT, &packet), (Reason::SpaStale, None));
}

#[test]
fn a_dry_run_answers_nothing() {
    let mut sim = answering(0);
    sim.features = sim.features.with(Features::DRY_RUN);
    let bytes = frame(CLIENT, &sealer().seal(&ASKING));
    assert_eq!(
        decide(&bytes[..], &sim).action(sim.features),
        FrameAction::Pass
    );
}

/// The content of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct AnswerContent {
    reason: Reason,
    port: u16,
    seconds: u32,
    source: Address,
    host_time: u64,
}

/// Judges a packet, and opens the answer if there is one.
fn answer(
    sim: &Sim,
    source: Address,
    packet: &[u8; PACKET_BYTES],
) -> (Reason, Option<AnswerContent>) {
    let (reason, sent) = sent_answer(sim, source, packet);
    let answered = sent.map(|sent| {
        let body = sealer().open_answer(packet, &sent);
        read_answer(body.expect("an answer of this host"))
    });
    (reason, answered)
}

/// Judges a packet, and returns the answer as it is sent if there is one.
fn sent_answer(
    sim: &Sim,
    source: Address,
    packet: &[u8; PACKET_BYTES],
) -> (Reason, Option<[u8; 48]>) {
    let mut bytes = frame(source, packet);
    let before = bytes.len();
    let judgement = decide(&bytes[..], sim);
    let Some(answer) = sim.answer.take() else {
        return (judgement.reason, None);
    };
    assert_eq!(judgement.action(sim.features), FrameAction::Answer);
    let mut memory = Memory(&mut bytes);
    rewrite_with(&mut memory, answer, &sim.spa_answer.get()).unwrap();
    assert!(memory.0.len() < before);
    let payload = memory.0.len() - 48;
    assert_eq!(memory.0[payload - 8..payload - 6], PORT.to_be_bytes());
    (judgement.reason, memory.0[payload..].try_into().ok())
}

fn read_answer(body: [u8; 32]) -> AnswerContent {
    let number = |from: usize, length: usize| {
        let octets: Vec<u8> = body[from..from + length].to_vec();
        octets
            .iter()
            .rev()
            .fold(0, |number, &octet| number << 8 | u64::from(octet))
    };
    assert_eq!(body[1], 0);
    AnswerContent {
        reason: Reason::from_code(body[0]).unwrap(),
        port: number(2, 2) as u16,
        seconds: number(4, 4) as u32,
        source: Address::from_v6(body[8..24].try_into().unwrap()),
        host_time: number(24, 8),
    }
}

/// Returns the host with a port for each door.
fn answering(flags: u16) -> Sim {
    let mut sim = host_with(flags);
    for may in sim.spa_may.values_mut() {
        may.port = 22;
    }
    sim
}
