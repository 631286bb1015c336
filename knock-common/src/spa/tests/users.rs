//! The doors of users, and the keys that are known.

use super::*;

#[test]
fn a_user_may_open_what_is_configured() {
    const BIND: u16 = SpaKey::BIND;
    const FOR_OTHERS: u16 = SpaKey::FOR_OTHERS;
    let door = |door| Content { door, ..CONTENT };
    let to = |source| Content { source, ..CONTENT };
    let wanted = |action, reserved| Content {
        action,
        reserved,
        ..CONTENT
    };
    let (any, mapped) = (Address::ANY, v4(7));
    let loopback = Address::from_v4([127, 0, 0, 1]);
    let group = Address::from_v4([224, 0, 0, 1]);
    // What the refusal names: the door, and the other address.
    for (name, flags, content, refused) in [
        (
            "a door of others",
            0,
            door(OTHERS),
            Some((Reason::SpaNotAllowed, Some(OTHERS_NUMBER), any)),
        ),
        (
            "no door",
            0,
            door(SpaDoorId(9)),
            Some((Reason::SpaNotAllowed, None, any)),
        ),
        ("its own address", 0, to(mapped), None),
        (
            "another address",
            0,
            to(OTHER),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), OTHER)),
        ),
        (
            "an address of the other family",
            0,
            to(V6),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), V6)),
        ),
        ("no address", 0, to(any), None),
        (
            "no address, although it is required",
            BIND,
            to(any),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), any)),
        ),
        ("its own address, which is required", BIND, to(mapped), None),
        ("another address for others", FOR_OTHERS, to(OTHER), None),
        ("an IPv6 address for others", FOR_OTHERS, to(V6), None),
        (
            "no address for others, although it is required",
            BIND | FOR_OTHERS,
            to(any),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), any)),
        ),
        (
            "loopback for others",
            FOR_OTHERS,
            to(loopback),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), loopback)),
        ),
        (
            "a group for others",
            FOR_OTHERS,
            to(group),
            Some((Reason::SpaElsewhere, Some(SSH_NUMBER), group)),
        ),
        (
            "an unknown action",
            0,
            wanted(2, [0; 3]),
            Some((Reason::SpaUnreadable, Some(SSH_NUMBER), any)),
        ),
        (
            "the greatest action",
            0,
            wanted(0x7f, [0; 3]),
            Some((Reason::SpaUnreadable, Some(SSH_NUMBER), any)),
        ),
        (
            "a first reserved bit",
            0,
            wanted(0, [1, 0, 0]),
            Some((Reason::SpaUnreadable, Some(SSH_NUMBER), any)),
        ),
        (
            "a last reserved bit",
            0,
            wanted(0x80, [0, 0, 0x80]),
            Some((Reason::SpaUnreadable, Some(SSH_NUMBER), any)),
        ),
    ] {
        let sim = host_with(flags);
        let (reason, events) = judge(&sim, CLIENT, &sealer().seal(&content));
        let [event] = events[..] else {
            panic!("{name}: {events:?}");
        };
        assert_eq!(event.user, ALICE, "{name}");
        assert_eq!(last(&sim), STAMP, "{name}");
        let is_for = if content.source == any {
            CLIENT
        } else {
            content.source
        };
        match refused {
            Some((refused, door, other)) => {
                assert_eq!(reason, refused, "{name}");
                assert_eq!(
                    (number_of(event.door), event.other),
                    (door, other),
                    "{name}"
                );
                assert_eq!(event.source, CLIENT, "{name}");
                assert!(sim.allow.entries.borrow().is_empty(), "{name}");
            }
            None => {
                assert_eq!(reason, Reason::Opened, "{name}");
                assert_eq!(grant(&sim, is_for, SSH_NUMBER), Some(30_000), "{name}");
                assert_eq!(sim.allow.entries.borrow().len(), 1, "{name}");
                let other = if is_for == CLIENT { any } else { CLIENT };
                assert_eq!((event.source, event.other), (is_for, other), "{name}");
            }
        }
    }
}

#[test]
fn an_expired_key_opens_nothing_and_its_grants_end_with_it() {
    for (name, left_ns, lasts_ms) in [
        ("long before", 3_600 * SECOND, Some(30_000)),
        ("less than the grant", 10 * SECOND, Some(10_000)),
        ("the last moment", 1, Some(0)),
        ("its end", 0, None),
    ] {
        let mut sim = host();
        for key in sim.spa_keys.values_mut() {
            key.not_after_ns = STAMP + left_ns;
        }
        let (reason, _) = judge(&sim, CLIENT, &sealer().seal(&CONTENT));
        let expected = if lasts_ms.is_some() {
            Reason::Opened
        } else {
            Reason::SpaExpired
        };
        assert_eq!(reason, expected, "{name}");
        assert_eq!(grant(&sim, CLIENT, SSH_NUMBER), lasts_ms, "{name}");
    }
}

#[test]
fn keys_that_the_host_does_not_have_are_unknown() {
    let mut sim = host();
    sim.spa_keys.clear();
    let packet = sealer().seal(&CONTENT);
    let (reason, events) = judge(&sim, CLIENT, &packet);
    assert_eq!((reason, events.len()), (Reason::SpaUnknown, 1));
    // Without a word for the key nothing shows that the packet is new.
    let sim = host();
    sim.spa_last.entries.borrow_mut().clear();
    assert_eq!(judge(&sim, CLIENT, &packet).0, Reason::SpaFull);
}

#[test]
fn both_host_keys_count_while_clients_change_over() {
    let old = sealer();
    let new = Sealer {
        gate: Gate {
            check: [1, 2],
            mask: [3, 4],
            is_used: 1,
        },
        mac: hmac_sha256::HmacKey::new(b"mac"),
        cipher: hmac_sha256::HmacKey::new(b"cipher"),
        id: old.id,
    };
    let mut sim = host();
    let [key] = sim.spa_keys.values().copied().collect::<Vec<_>>()[..] else {
        panic!("one key");
    };
    sim.spa_gates = vec![new.gate, old.gate];
    sim.spa_keys = [
        (
            SpaKeyName::new(old.id, 0),
            SpaKey {
                mac: new.mac,
                cipher: new.cipher,
                ..key
            },
        ),
        (SpaKeyName::new(old.id, 1), key),
    ]
    .into();
    let at = |more| Content {
        stamp: STAMP + more,
        ..CONTENT
    };
    for (name, packet, reason) in [
        ("the old host key", old.seal(&at(0)), Reason::Opened),
        ("the new host key", new.seal(&at(1)), Reason::Refreshed),
        (
            "a stamp that was used with the other one",
            old.seal(&at(1)),
            Reason::SpaReplayed,
        ),
        (
            "the old host key again",
            old.seal(&at(2)),
            Reason::Refreshed,
        ),
        (
            "the old gate before the new keys",
            Sealer {
                gate: old.gate,
                ..new
            }
            .seal(&at(3)),
            Reason::SpaForged,
        ),
    ] {
        assert_eq!(judge(&sim, CLIENT, &packet).0, reason, "{name}");
    }
    sim.spa_gates[1].is_used = 0;
    let (reason, _) = judge(&sim, CLIENT, &old.seal(&at(4)));
    assert_eq!(reason, Reason::SpaNoise, "an unused gate");
}
