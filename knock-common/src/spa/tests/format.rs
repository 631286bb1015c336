//! Packets, and what they open.

use super::*;

const VECTORS: &str = include_str!("../../../tests/spa_vectors.txt");
const ANSWERS: &str = include_str!("../../../tests/spa_answers.txt");

/// The vectors of one client and one host. `tests/oracle/spa.py` makes them, which shares no code with this crate.
#[test]
fn packets_are_those_of_another_implementation() {
    let mut count = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split(" | ").collect();
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
        ] = fields[..]
        else {
            panic!("{line}");
        };
        if (client, host) != (&"22".repeat(32), &"11".repeat(32)) {
            continue;
        }
        let named = sha256::digest(&[b"knock spa v1 door", door.as_bytes()].concat());
        let [low, high, ..] = named.map(u32::swap_bytes);
        let content = Content {
            stamp: stamp.parse().unwrap(),
            source: Address::from(source.parse::<IpAddr>().unwrap()),
            door: match door {
                "-" => SpaDoorId::FIRST,
                _ => SpaDoorId(u64::from(high) << 32 | u64::from(low)),
            },
            seconds: seconds.parse().unwrap(),
            action: u8::from_str_radix(action.trim_start_matches("0x"), 16).unwrap(),
            reserved: [0; 3],
        };
        assert_eq!(sealer().seal(&content), octets(packet), "{name}");
        count += 1;
    }
    assert!(count > 10, "{count} vectors");
}

#[test]
fn answers_are_those_of_another_implementation() {
    let mut count = 0;
    for line in ANSWERS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split(" | ").collect();
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
        ] = fields[..]
        else {
            panic!("{line}");
        };
        if (client, host) != (&"22".repeat(32), &"11".repeat(32)) {
            continue;
        }
        let source = Address::from(source.parse::<IpAddr>().unwrap());
        let body = [
            &[outcome.parse().unwrap(), 0][..],
            &port.parse::<u16>().unwrap().to_le_bytes(),
            &seconds.parse::<u32>().unwrap().to_le_bytes(),
            &source.octets(),
            &clock.parse::<u64>().unwrap().to_le_bytes(),
        ]
        .concat();
        let mut packet = [0; PACKET_BYTES];
        packet[..16].copy_from_slice(&octets::<16>(tag));
        let opened = sealer().open_answer(&packet, &octets::<48>(answer));
        assert_eq!(opened.map(Vec::from), Some(body), "{name}");
        count += 1;
    }
    assert!(count > 6, "{count} answers");
}

#[test]
fn a_packet_opens_what_it_asks_for() {
    let open = |seconds| Content { seconds, ..CONTENT };
    for (name, content, door, lasts_ms) in [
        ("30 seconds", CONTENT, SSH_NUMBER, 30_000),
        ("the time of the door", open(0), SSH_NUMBER, 30_000),
        ("the longest time", open(600), SSH_NUMBER, 600_000),
        ("too long", open(601), SSH_NUMBER, 600_000),
        ("the greatest number", open(u32::MAX), SSH_NUMBER, 600_000),
        (
            "another door",
            Content {
                door: WIKI,
                ..open(90)
            },
            WIKI_NUMBER,
            60_000,
        ),
        (
            "the first door",
            Content {
                door: SpaDoorId::FIRST,
                ..CONTENT
            },
            SSH_NUMBER,
            30_000,
        ),
        (
            "its own source",
            Content {
                source: Address::ANY,
                ..CONTENT
            },
            SSH_NUMBER,
            30_000,
        ),
        (
            "an answer",
            Content {
                action: 0x80,
                ..CONTENT
            },
            SSH_NUMBER,
            30_000,
        ),
    ] {
        let sim = host();
        let packet = sealer().seal(&content);
        let (reason, events) = judge(&sim, CLIENT, &packet);
        assert_eq!(reason, Reason::Opened, "{name}");
        assert_eq!(grant(&sim, CLIENT, door), Some(lasts_ms), "{name}");
        assert_eq!(sim.allow.entries.borrow().len(), 1, "{name}");
        assert_eq!(last(&sim), STAMP, "{name}");
        let expected = Event {
            at_ns: BOOT,
            until_ms: BOOT / 1_000_000 + lasts_ms,
            source: CLIENT,
            destination: Address::from_v4([192, 0, 2, 1]),
            door,
            source_port: 40_000,
            port: PORT,
            protocol: 1,
            reason: Reason::Opened as u8,
            user: ALICE,
            ..Event::default()
        };
        assert_eq!(events, [expected], "{name}");
        let (again, _) = judge(&sim, CLIENT, &packet);
        assert_eq!(again, Reason::SpaReplayed, "{name}, again");
    }
}

#[test]
fn the_next_packet_of_the_client_passes() {
    for source in [CLIENT, V6] {
        let sim = host();
        let packet = sealer().seal(&Content { source, ..CONTENT });
        let mut syn = frame(source, &[0; 20]);
        let ip = syn.len() - 28 - if source.is_v4() { 20 } else { 40 };
        syn[ip + if source.is_v4() { 9 } else { 6 }] = 6;
        let tcp = syn.len() - 28;
        syn[tcp + 2..tcp + 4].copy_from_slice(&22_u16.to_be_bytes());
        syn[tcp + 12..tcp + 14].copy_from_slice(&[0x50, 2]);
        assert_eq!(crate::judge(&syn[..], &sim), Reason::NoGrant);
        assert_eq!(judge(&sim, source, &packet).0, Reason::Opened);
        assert_eq!(crate::judge(&syn[..], &sim), Reason::Granted);
        let close = Content {
            source,
            stamp: STAMP + 1,
            action: 1,
            ..CONTENT
        };
        let (closed, events) = judge(&sim, source, &sealer().seal(&close));
        assert_eq!(closed, Reason::Closed);
        let [Event { door, user, .. }] = events[..] else {
            panic!("{events:?}");
        };
        assert_eq!((door, user), (SSH_NUMBER, ALICE));
        assert_eq!(crate::judge(&syn[..], &sim), Reason::NoGrant);
    }
}

#[test]
fn random_octets_may_follow_a_packet_and_a_part_of_it_is_noise() {
    let packet = sealer().seal(&CONTENT);
    for more in [1, 2, 7, 200] {
        let long = [&packet[..], &vec![0x5a; more]].concat();
        assert_eq!(
            judge(&host(), CLIENT, &long).0,
            Reason::Opened,
            "{more} more"
        );
        assert_eq!(
            judge(
                &host(),
                V6,
                &[
                    &sealer().seal(&Content {
                        source: V6,
                        ..CONTENT
                    })[..],
                    &vec![1; more]
                ]
                .concat()
            )
            .0,
            Reason::Opened,
            "IPv6, {more} more"
        );
    }
    for length in 0..PACKET_BYTES {
        let sim = host();
        assert_eq!(
            judge(&sim, CLIENT, &packet[..length]).0,
            Reason::SpaNoise,
            "{length}"
        );
        // Ethernet pads short frames: what lies behind the datagram is not part of it.
        let mut padded = frame(CLIENT, &packet[..length]);
        padded.extend(&packet[length..]);
        assert_eq!(
            crate::judge(&padded[..], &sim),
            Reason::SpaNoise,
            "{length}, padded"
        );
        assert_eq!(last(&sim), 0, "{length}");
    }
}

/// A flipped bit fails at the gate or, once the gate is recomputed, at the tag.
#[test]
fn each_changed_bit_is_refused_and_changes_nothing() {
    let packet = sealer().seal(&CONTENT);
    for bit in 0..8 * PACKET_BYTES {
        for closes_gate in [false, true] {
            let mut changed = packet;
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut reasons = vec![Reason::SpaNoise];
            if closes_gate {
                sealer().close_gate(&mut changed);
                // Only a change of the gate itself is undone.
                reasons = match bit / 8 {
                    64.. => continue,
                    // The tag is the input of the mask of id and stamp.
                    0..16 => vec![Reason::SpaStale, Reason::SpaUnknown],
                    16..24 => vec![Reason::SpaUnknown],
                    24..32 => vec![Reason::SpaStale, Reason::SpaForged],
                    _ => vec![Reason::SpaForged],
                };
            }
            let sim = host();
            let (reason, events) = judge(&sim, CLIENT, &changed);
            assert!(reasons.contains(&reason), "bit {bit}: {reason:?}");
            assert_eq!(last(&sim), 0, "bit {bit}");
            assert!(sim.allow.entries.borrow().is_empty(), "bit {bit}");
            assert!(events.iter().all(|event| event.user == 0), "bit {bit}");
        }
    }
}

proptest! {
    /// For any packet and any state of the host, the greatest stamp never decreases, and nothing opens twice.
    #[test]
    fn nothing_opens_twice(
        stamps in prop::collection::vec((0..8_u64, 0..4_u8, any::<bool>()), 1..40),
    ) {
        let sim = host();
        let mut used: Vec<u64> = Vec::new();
        for (more, flip, closes) in stamps {
            let stamp = STAMP + more;
            let mut packet = sealer().seal(&Content { stamp, action: closes.into(), ..CONTENT });
            if flip == 0 {
                packet[40] ^= 1;
                sealer().close_gate(&mut packet);
            }
            let before = last(&sim);
            let (reason, _) = judge(&sim, CLIENT, &packet);
            prop_assert!(last(&sim) >= before);
            let is_used = matches!(reason, Reason::Opened | Reason::Refreshed | Reason::Closed);
            prop_assert_eq!(is_used, flip != 0 && stamp > before);
            if is_used {
                prop_assert!(!used.contains(&stamp));
                used.push(stamp);
            }
        }
    }

    /// Nobody without the keys of the pair gets in, whatever the octets are.
    #[test]
    fn packets_of_others_open_nothing(
        mac: [u8; 32],
        cipher: [u8; 32],
        body: [u8; 32],
        gate: [u64; 4],
        is_gated: bool,
        ahead in -40_i64..40,
    ) {
        let [a, b, c, d] = gate;
        let right = sealer();
        let other = Sealer {
            gate: match is_gated {
                true => right.gate,
                false => Gate { check: [a, b], mask: [c, d], is_used: 1 },
            },
            mac: hmac_sha256::HmacKey::new(&mac),
            cipher: hmac_sha256::HmacKey::new(&cipher),
            id: right.id,
        };
        let sim = host();
        let stamp = STAMP.wrapping_add_signed(ahead * SECOND as i64);
        let (reason, _) = judge(&sim, CLIENT, &other.seal_body(stamp, body));
        let expected = match (is_gated, ahead.abs() <= 30) {
            (false, _) => Reason::SpaNoise,
            (true, false) => Reason::SpaStale,
            (true, true) => Reason::SpaForged,
        };
        prop_assert_eq!(reason, expected);
        prop_assert_eq!(last(&sim), 0);
        prop_assert!(sim.allow.entries.borrow().is_empty());
    }

    /// Any body that a user can seal: what opens is one of the user's doors, for the source, within its limit.
    #[test]
    fn a_users_packet_opens_the_users_doors_only(
        body: [u8; 32],
        knows_door in 0..3_u8,
        is_for_source: bool,
        is_plain: bool,
    ) {
        let mut body = body;
        match knows_door {
            0 => body[16..24].copy_from_slice(&SSH.0.to_le_bytes()),
            1 => body[16..24].copy_from_slice(&OTHERS.0.to_le_bytes()),
            _ => {}
        }
        if is_for_source {
            body[..16].copy_from_slice(&CLIENT.octets());
        }
        if is_plain {
            body[28..].copy_from_slice(&[0; 4]);
        }
        let sim = host();
        let (reason, events) = judge(&sim, CLIENT, &sealer().seal_body(STAMP, body));
        prop_assert_eq!(reason.verdict(), Verdict::Drop);
        prop_assert_eq!(events.len(), 1);
        prop_assert_eq!(events[0].user, ALICE);
        prop_assert_eq!(reason == Reason::Opened, knows_door == 0 && is_for_source && is_plain);
        let entries = sim.allow.entries.borrow();
        let now_ms = sim.now.get() / 1_000_000;
        for (key, word) in entries.iter() {
            let word: &Rc<Cell<u64>> = word;
            prop_assert_eq!(key.source, CLIENT);
            prop_assert_eq!(key.port_group, SSH_NUMBER);
            prop_assert!(Grant::from_word(word.get()).until_ms <= now_ms + 600_000);
        }
    }

    /// The distance of a stamp from the wall clock decides, also around zero and the greatest number.
    #[test]
    fn freshness_is_a_distance(stamp: u64, wall: u64, near: bool, distance in 0..2 * WINDOW) {
        let wall = if near { stamp.wrapping_add(distance) } else { wall };
        let apart = stamp.wrapping_sub(wall).min(wall.wrapping_sub(stamp));
        prop_assert_eq!(stamp::is_fresh(stamp, wall, WINDOW), apart <= WINDOW);
    }

    /// The format of a port survives the port table.
    #[test]
    fn port_rules_keep_their_meaning(formats in 0..4_u8, kind in 0..3_u8, port_group: u16) {
        let otherwise = match kind {
            0 => Otherwise::Drop,
            1 => Otherwise::Pass,
            _ => Otherwise::Protected(port_group),
        };
        let port = SpaPort { formats: SpaFormats(formats), otherwise };
        prop_assert_eq!(PortRule::spa(port).spa_port(), port);
    }
}
