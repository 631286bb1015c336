//! Grants that an administrator gives and revokes, among those of knocks.

use std::collections::HashMap;

use knock_common::{
    Address, GrantPrefix, Reason,
    event::Event,
    grant::Grant,
    layout::{DoorEntry, GrantKey, PORT_GROUPS_PER_DOOR},
    time::SKEW_MS,
};
use knock_user::ledger::{By, Ending, Giver, Ledger, LedgerAction, Lookup, Revocation};

/// Opens port group 1.
const SSH: u16 = 0;
/// Opens port groups 1 and 2.
const BOTH: u16 = 1;
/// Closes port group 1.
const SHUT: u16 = 2;
/// No door has this number.
const NONE: u16 = 3;

const A: Address = Address { words: [1; 4] };
const B: Address = Address { words: [2; 4] };
const ROOT: u32 = 0;

#[test]
fn a_closing_sequence_ends_grants_by_hand() {
    /// The door that closes the port group of SSH.
    const SHUT: u16 = 2;
    for (name, later_ms, expected) in [
        ("later", 5, "closed ssh"),
        ("in the same tick", 0, "closed ssh"),
        ("on a CPU whose clock is behind", -4, "closed ssh"),
        ("old news", -100, ""),
    ] {
        let mut world = LedgerEnv::new();
        world.knock_and_receive(A, SSH);
        let at_ms = world.now_ms.saturating_add_signed(later_ms);
        let closed = Event {
            at_ns: at_ms * 1_000_000,
            source: A,
            door: SHUT,
            reason: Reason::Closed as u8,
            ..Event::default()
        };
        assert_eq!(summary(&world.receive(&closed)), expected, "{name}");
    }
}

#[test]
fn a_grant_is_reported_once_and_expires() {
    let mut world = LedgerEnv::new();
    assert_eq!(
        summary(&world.grant(A, BOTH, 10_000)),
        "opened both Some(0)"
    );
    assert_eq!(world.lets_in(A, 1), Some(10_000));
    assert_eq!(world.lets_in(A, 2), Some(10_000));
    assert_eq!(world.lets_in(B, 1), None);
    assert_eq!(summary(&world.wait(9_000)), "");
    assert_eq!(summary(&world.wait(2_000)), "expired both");
    assert!(world.allow.is_empty());
}

#[test]
fn the_longest_end_wins() {
    let mut world = LedgerEnv::new();
    assert_eq!(summary(&world.knock_and_receive(A, SSH)), "opened ssh None");
    assert_eq!(
        summary(&world.grant(A, SSH, 10_000)),
        "",
        "a shorter one changes nothing"
    );
    assert_eq!(world.lets_in(A, 1), Some(30_000));
    let open = world.ledger.open().next().unwrap();
    assert_eq!((open.until_ms, open.giver), (130_000, Some(Giver::Knocks)));

    assert_eq!(
        summary(&world.grant(A, SSH, 60_000)),
        "refreshed ssh Some(0)"
    );
    assert_eq!(world.lets_in(A, 1), Some(60_000));
    let open = world.ledger.open().next().unwrap();
    assert_eq!(
        (open.until_ms, open.given_ms, open.giver),
        (160_000, 100_000, Some(Giver::Hand(ROOT)))
    );

    assert_eq!(
        summary(&world.knock_and_receive(A, SSH)),
        "",
        "a knock takes nothing back"
    );
    assert_eq!(world.lets_in(A, 1), Some(60_000));
    world.wait(40_000);
    assert_eq!(
        summary(&world.knock_and_receive(A, SSH)),
        "refreshed ssh None"
    );
    assert_eq!(
        world.ledger.open().next().unwrap().giver,
        Some(Giver::Knocks),
        "the giver of its last part"
    );
}

#[test]
fn a_grant_for_a_prefix_is_one_for_each_of_its_addresses() {
    let [first, inside, outside] = ["2001:db8:1:2::5", "2001:db8:1:2:a::9", "2001:db8:1:3::5"]
        .map(|text| Address::from(text.parse::<std::net::IpAddr>().unwrap()));
    for (name, source, doors) in [
        ("the source that knocked", first, 1),
        ("another one of its prefix", inside, 1),
        ("one outside", outside, 0),
    ] {
        let mut world = LedgerEnv::with_prefix(GrantPrefix::new(24, 64));
        assert_eq!(
            summary(&world.knock_and_receive(first, SSH)),
            "opened ssh None",
            "{name}"
        );
        let again = world.wait(1_000);
        assert_eq!(summary(&again), "", "{name}");
        assert_eq!(
            summary(&world.knock_and_receive(inside, SSH)),
            "refreshed ssh None",
            "{name}"
        );
        assert_eq!(world.ledger.open().count(), 1, "{name}");
        let (revocation, actions) = world.revoke(source, None);
        assert_eq!(revocation.doors.len(), doors, "{name}");
        assert_eq!(actions.len(), doors, "{name}");
        assert_eq!(world.ledger.open().count(), 1 - doors, "{name}");
        let end = world.ledger.ended_ms(inside, SSH, world.now_ms);
        assert_eq!(end.is_some(), doors == 1, "{name}");
    }
}

#[test]
fn openings_follow_the_prefix_of_their_door() {
    let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
    let [one, other] = ["2001:db8:1:2::5", "2001:db8:1:2:a::9"].map(address);
    let (single, wide) = (GrantPrefix::SINGLE, GrantPrefix::new(32, 64));
    for (name, before, after, closed, open) in [
        ("unchanged", wide, wide, 0, vec![address("2001:db8:1:2::")]),
        ("wider", single, wide, 0, vec![address("2001:db8:1:2::")]),
        ("narrower", wide, single, 1, vec![]),
        (
            "the other family",
            single,
            GrantPrefix::new(24, 128),
            0,
            vec![one, other],
        ),
    ] {
        let mut world = LedgerEnv::with_prefix(before);
        world.knock_and_receive(one, SSH);
        world.knock_and_receive(other, SSH);
        let doors = LedgerEnv::doors(after);
        let actions = world.ledger.set_doors(doors, world.now_ms);
        let is_narrowed = |action: &&LedgerAction| {
            matches!(
                action,
                LedgerAction::Closed {
                    ending: Ending::Narrowed,
                    ..
                }
            )
        };
        assert_eq!(actions.iter().filter(is_narrowed).count(), closed, "{name}");
        assert_eq!(actions.len(), closed, "{name}");
        let sources: Vec<_> = world.ledger.open().map(|open| open.source).collect();
        assert_eq!(sources, open, "{name}");
    }
}

#[test]
fn doors_without_grants_can_not_be_granted() {
    let world = LedgerEnv::new();
    for (name, door) in [
        ("one that closes", SHUT),
        ("none", NONE),
        ("none at all", 77),
    ] {
        assert_eq!(world.ledger.entries_of(A, door), [], "{name}");
    }
}

#[test]
fn revoking_takes_effect_at_once_and_is_reported_once() {
    let mut world = LedgerEnv::new();
    world.grant(A, BOTH, 10_000);
    world.knock_and_receive(B, SSH);
    let (revocation, actions) = world.revoke(A, None);
    assert_eq!(summary(&actions), "revoked both 0");
    assert_eq!(Vec::from_iter(revocation.doors), [BOTH]);
    assert_eq!((world.lets_in(A, 1), world.lets_in(A, 2)), (None, None));
    assert_eq!(world.lets_in(B, 1), Some(30_000), "others keep theirs");
    let ended_ms = world.now_ms - SKEW_MS;
    assert!(
        revocation
            .write
            .iter()
            .all(|(_, grant)| grant.until_ms == ended_ms)
    );

    let (again, actions) = world.revoke(A, None);
    assert_eq!(
        (again, summary(&actions).as_str()),
        (Revocation::default(), "")
    );
    assert_eq!(summary(&world.wait(1_000)), "");
    assert_eq!(world.allow.len(), 1, "its entries are removed");
}

#[test]
fn revoking_keeps_ports_that_another_door_opened() {
    let mut world = LedgerEnv::new();
    // The map holds the grant that ends later, of the other door.
    world.grant(A, SSH, 10_000);
    world.knock_and_receive(A, BOTH);
    assert_eq!(summary(&world.revoke(A, Some(SSH)).1), "revoked ssh 0");
    assert_eq!(world.lets_in(A, 1), Some(30_000));

    // The map holds the grant that is revoked, which hid the other.
    let mut world = LedgerEnv::new();
    world.knock_and_receive(A, BOTH);
    world.grant(A, SSH, 60_000);
    assert_eq!(world.lets_in(A, 1), Some(60_000));
    assert_eq!(summary(&world.revoke(A, Some(SSH)).1), "revoked ssh 0");
    assert_eq!(world.lets_in(A, 1), Some(30_000));
    assert_eq!(world.lets_in(A, 2), Some(30_000));
    assert_eq!(summary(&world.wait(31_000)), "expired both");

    let mut world = LedgerEnv::new();
    world.knock_and_receive(A, BOTH);
    world.grant(A, SSH, 60_000);
    assert_eq!(
        summary(&world.revoke(A, None).1),
        "revoked ssh 0, revoked both 0"
    );
    assert_eq!((world.lets_in(A, 1), world.lets_in(A, 2)), (None, None));
}

#[test]
fn a_grant_whose_event_is_unread_is_revoked_too() {
    let mut world = LedgerEnv::new();
    let late = world.knock(A, SSH);
    let (revocation, actions) = world.revoke(A, None);
    assert_eq!(
        summary(&actions),
        "",
        "an opening that was not reported has no reported end"
    );
    assert_eq!(Vec::from_iter(revocation.doors), [SSH]);
    assert_eq!(world.lets_in(A, 1), None);
    assert_eq!(summary(&world.receive(&late)), "", "the event is not new");
    world.wait(1_000);
    assert_eq!(
        summary(&world.knock_and_receive(A, SSH)),
        "opened ssh None",
        "a later one is"
    );
}

#[test]
fn revoking_without_a_grant_changes_nothing() {
    let mut world = LedgerEnv::new();
    world.knock_and_receive(B, SSH);
    world.grant(A, SSH, 1_000);
    world.wait(2_000);
    for (name, source, door) in [
        ("an ended grant", A, None),
        ("another door", B, Some(BOTH)),
        ("no such door", B, Some(77)),
        ("nobody", Address::default(), None),
    ] {
        let (revocation, actions) = world.revoke(source, door);
        assert_eq!(revocation, Revocation::default(), "{name}");
        assert_eq!(summary(&actions), "", "{name}");
    }
}

fn door(port_groups: &[u16], closes: bool) -> DoorEntry {
    let mut all = [0; PORT_GROUPS_PER_DOOR];
    all[..port_groups.len()].copy_from_slice(port_groups);
    DoorEntry {
        open_for_ms: 30_000,
        closes: closes.into(),
        port_group_count: port_groups.len() as u16,
        port_groups: all,
        ..DoorEntry::default()
    }
}

/// A ledger, and the map that the kernel side and the administrator write.
struct LedgerEnv {
    ledger: Ledger,
    allow: HashMap<GrantKey, Grant>,
    now_ms: u64,
}

impl LedgerEnv {
    fn doors(grant_prefix: GrantPrefix) -> Vec<DoorEntry> {
        let doors = [door(&[1], false), door(&[1, 2], false), door(&[1], true)];
        let with_prefix = doors.map(|door| DoorEntry {
            grant_prefix,
            ..door
        });
        with_prefix
            .into_iter()
            .chain([DoorEntry::default()])
            .collect()
    }

    fn new() -> Self {
        Self::with_prefix(GrantPrefix::SINGLE)
    }

    fn with_prefix(grant_prefix: GrantPrefix) -> Self {
        Self {
            ledger: Ledger::new(Self::doors(grant_prefix)),
            allow: HashMap::new(),
            now_ms: 100_000,
        }
    }

    fn raise(&mut self, key: GrantKey, grant: Grant) {
        let held = self.allow.entry(key).or_insert(grant);
        if held.until_ms < grant.until_ms {
            *held = grant;
        }
    }

    fn grant(&mut self, source: Address, door: u16, lasts_ms: u64) -> Vec<LedgerAction> {
        let until_ms = self.now_ms + lasts_ms;
        let grant = Grant { until_ms, door };
        for key in self.ledger.entries_of(source, door) {
            self.raise(key, grant);
        }
        self.ledger
            .granted(source, grant, By::Hand(ROOT), self.now_ms)
    }

    fn revoke(&mut self, source: Address, door: Option<u16>) -> (Revocation, Vec<LedgerAction>) {
        let entries: Vec<_> = self
            .allow
            .iter()
            .map(|(&key, &grant)| (key, grant))
            .collect();
        let revocation = self.ledger.revoke(source, door, &entries, self.now_ms);
        for &(key, grant) in &revocation.write {
            self.allow.insert(key, grant);
        }
        let actions = self
            .ledger
            .revoked(source, &revocation, By::Hand(ROOT), self.now_ms);
        (revocation, actions)
    }

    /// Gives a grant as the kernel side does; returns its event, which the ledger has not received.
    fn knock(&mut self, source: Address, door: u16) -> Event {
        let until_ms = self.now_ms + 30_000;
        for key in self.ledger.entries_of(source, door) {
            self.raise(key, Grant { until_ms, door });
        }
        Event {
            at_ns: self.now_ms * 1_000_000,
            until_ms,
            source,
            door,
            reason: Reason::Opened as u8,
            ..Event::default()
        }
    }

    fn receive(&mut self, event: &Event) -> Vec<LedgerAction> {
        self.ledger.receive(event, self.now_ms)
    }

    fn knock_and_receive(&mut self, source: Address, door: u16) -> Vec<LedgerAction> {
        let event = self.knock(source, door);
        self.receive(&event)
    }

    /// Lets time pass, and does what is due.
    fn wait(&mut self, millis: u64) -> Vec<LedgerAction> {
        self.now_ms += millis;
        let allow = &self.allow;
        let look = |key: &GrantKey| {
            allow
                .get(key)
                .map_or(Lookup::Absent, |&grant| Lookup::Found(grant))
        };
        let actions = self.ledger.due(self.now_ms, look);
        for action in &actions {
            if let LedgerAction::Remove { key, grant } = action {
                assert_eq!(self.allow.remove(key), Some(*grant));
            }
        }
        actions
    }

    /// Returns the end of a source's access to a port group, by the map.
    fn lets_in(&self, source: Address, port_group: u16) -> Option<u64> {
        let key = GrantKey {
            source,
            port_group,
            target_id: 0,
        };
        let until_ms = self.allow.get(&key)?.until_ms;
        until_ms.checked_sub(self.now_ms).filter(|left| *left > 0)
    }
}

/// Returns the reported openings and endings, in short.
fn summary(actions: &[LedgerAction]) -> String {
    let name = |door| ["ssh", "both", "shut", "none"][usize::from(door)];
    let user = |by: By| match by {
        By::Hand(uid) => uid,
        By::Host(host) => panic!("no other host: {host:?}"),
    };
    let words: Vec<String> = actions
        .iter()
        .filter_map(|action| match *action {
            LedgerAction::Opened { door, by, .. } => {
                Some(format!("opened {} {:?}", name(door), by.map(user)))
            }
            LedgerAction::Refreshed { door, by, .. } => {
                Some(format!("refreshed {} {:?}", name(door), by.map(user)))
            }
            LedgerAction::Closed { door, ending, .. } => Some(match ending {
                Ending::Revoked { by } => format!("revoked {} {}", name(door), user(by)),
                Ending::Expired => format!("expired {}", name(door)),
                Ending::Sequence { .. } | Ending::Packet | Ending::Removed | Ending::Narrowed => {
                    format!("closed {}", name(door))
                }
            }),
            LedgerAction::Remove { .. } | LedgerAction::Restore { .. } => None,
        })
        .collect();
    words.join(", ")
}
