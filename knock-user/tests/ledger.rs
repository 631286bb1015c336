//! The ledger against a kernel side that writes the map first and reports later, or never.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map::Entry},
    net::Ipv4Addr,
};

use knock_common::{
    Address, Reason,
    event::Event,
    grant::Grant,
    layout::{ALLOW_MAX, DoorEntry, GrantKey, PORT_GROUPS_PER_DOOR},
    time::SKEW_MS,
};
use knock_user::ledger::{Ending, Ledger, LedgerAction, Lookup};
use proptest::prelude::*;

const SSH: u16 = 0;
const BOTH: u16 = 1;
const SHUT: u16 = 2;
const BELL: u16 = 3;
const WEB: u16 = 4;
const NAMES: [&str; 5] = ["ssh", "both", "shut", "bell", "web"];

use LedgerStep::*;

#[test]
fn openings_are_reported_once_and_end_with_their_grants() {
    #[rustfmt::skip]
    let rows: &[(&str, &[LedgerStep], &[&str])] = &[
        ("opens, expires", &[Knock(SSH), Read, At(30_000), Due, At(30_033), Due, At(90_000), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1"]),
        ("a storm of knocks opens once", &[Knock(SSH), Read, At(1), Knock(SSH), Read, At(2), Knock(SSH), Read, At(30_034), Due, At(30_035), Due],
            &["opened ssh 30000", "refreshed ssh 30001", "refreshed ssh 30002", "closed ssh expired", "remove 1"]),
        ("a repeat in the same millisecond is not reported", &[Knock(SSH), Knock(SSH), Read],
            &["opened ssh 30000"]),
        ("a door with two services closes once", &[Knock(WEB), Read, At(20_033), Due],
            &["opened web 20000", "closed web expired", "remove 3", "remove 4"]),
        ("a door without ports", &[Knock(BELL), Read, At(5_000), Knock(BELL), Read, At(10_033), Due, At(15_033), Due],
            &["opened bell 10000", "refreshed bell 15000", "closed bell expired"]),
        ("refreshed, event not read", &[Knock(SSH), Read, At(20_000), Knock(SSH), At(30_033), Due, Read, At(50_033), Due],
            &["opened ssh 30000", "refreshed ssh 50000", "closed ssh expired", "remove 1"]),
        ("refreshed, event lost", &[Knock(SSH), Read, At(20_000), Lost(SSH), At(30_033), Due, At(50_033), Due],
            &["opened ssh 30000", "refreshed ssh 50000", "closed ssh expired", "remove 1"]),
        ("opened again in the moment of removal", &[Knock(SSH), Read, At(30_033), DueRaced(SSH), Read, At(60_066), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1", "restore 1 ssh 60033", "opened ssh 60033", "closed ssh expired", "remove 1"]),
        ("the same, read much later", &[Knock(SSH), Read, At(30_033), DueRaced(SSH), At(40_033), Read],
            &["opened ssh 30000", "closed ssh expired", "remove 1", "restore 1 ssh 60033", "opened ssh 60033"]),
        ("opened in the moment of removal, then closed", &[Knock(SSH), Read, At(30_033), DueRaced(SSH), At(30_034), Knock(SHUT), Read, At(30_035), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1", "restore 1 ssh 60033", "opened ssh 60033", "closed ssh by shut", "remove 1"]),
        ("opened again after the removal", &[Knock(SSH), Read, At(30_033), Due, At(30_034), Knock(SSH), Read],
            &["opened ssh 30000", "closed ssh expired", "remove 1", "restore 1 ssh 60034", "opened ssh 60034"]),
        ("another door's longer grant", &[Knock(SSH), At(1), Knock(BOTH), Read, At(30_033), Due, At(60_034), Due],
            &["opened ssh 30000", "opened both 60001", "closed ssh expired", "closed both expired", "remove 1", "remove 2"]),
        ("another door's longer grant, unheard of", &[Knock(SSH), Read, At(1), Lost(BOTH), At(30_033), Due],
            &["opened ssh 30000", "opened both 60001", "closed ssh expired"]),
        ("the shorter door last", &[Knock(BOTH), At(1), Knock(SSH), Read, At(30_034), Due, At(60_033), Due],
            &["opened both 60000", "opened ssh 30001", "closed ssh expired", "closed both expired", "remove 1", "remove 2"]),
        ("two doors at once", &[Knock(BOTH), At(30_000), Knock(SSH), Read, At(60_033), Due],
            &["opened both 60000", "opened ssh 60000", "closed ssh expired", "remove 1", "closed both expired", "remove 2"]),
        ("a closing that is older than what the sweep found", &[Knock(SSH), Read, At(5_000), Knock(SHUT), At(6_000), Knock(SSH), Sweep, Read, Due, At(36_033), Due],
            &["opened ssh 30000", "refreshed ssh 36000", "closed ssh expired", "remove 1"]),
        ("closed by a sequence", &[Knock(SSH), Read, At(5_000), Knock(SHUT), Read, Due, At(5_033), Due, At(30_033), Due],
            &["opened ssh 30000", "closed ssh by shut", "remove 1"]),
        ("closed in part", &[Knock(BOTH), Read, At(5_000), Knock(SHUT), Read, At(5_033), Due, At(60_033), Due],
            &["opened both 60000", "remove 1", "closed both expired", "remove 2"]),
        ("closed and opened again", &[Knock(SSH), At(5_000), Knock(SHUT), At(5_002), Knock(SSH), Read, Due, At(35_035), Due],
            &["opened ssh 30000", "closed ssh by shut", "opened ssh 35002", "closed ssh expired", "remove 1"]),
        ("closed and opened in one tick, unread", &[Tick(5_000), Knock(SSH), Knock(SHUT), Knock(SSH), Read, At(35_033), Due],
            &["opened ssh 35000", "closed ssh by shut", "opened ssh 35000", "closed ssh expired", "remove 1"]),
        ("closed and opened in one tick, read one by one", &[Tick(5_000), Knock(SSH), Read, Knock(SHUT), Read, Knock(SSH), Read, Due],
            &["opened ssh 35000", "closed ssh by shut", "opened ssh 35000"]),
        ("closed and opened in one tick, swept before", &[Tick(5_000), Knock(SSH), Knock(SHUT), Knock(SSH), Sweep, Read, At(5_033), Due],
            &["opened ssh 35000", "closed ssh by shut", "opened ssh 35000"]),
        ("restored, then closed and opened in one tick", &[Knock(SSH), Read, At(30_033), DueRaced(SSH), Read, Tick(30_040), Knock(SHUT), Knock(SSH), Read, At(60_073), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1", "restore 1 ssh 60033", "opened ssh 60033", "closed ssh by shut", "remove 1", "restore 1 ssh 60040", "opened ssh 60040", "closed ssh expired", "remove 1"]),
        ("opened, closed and opened in one tick after a removal", &[Knock(SSH), Read, At(30_033), Due, Tick(30_040), Knock(SSH), Knock(SHUT), Knock(SSH), Read, At(60_073), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1", "restore 1 ssh 60040", "opened ssh 60040", "closed ssh by shut", "restore 1 ssh 60040", "opened ssh 60040", "closed ssh expired", "remove 1"]),
        ("opened again before the removal", &[Knock(SSH), Read, At(30_033), DueAmid(SSH), Read, At(60_066), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1", "restore 1 ssh 60033", "opened ssh 60033", "closed ssh expired", "remove 1"]),
        ("closed, event lost", &[Knock(SSH), Read, At(5_000), Lost(SHUT), At(6_000), Sweep, Due],
            &["opened ssh 30000", "closed ssh early", "remove 1"]),
        ("closed just after it opened, event lost", &[At(5_000), Knock(SSH), Sweep, At(5_010), Lost(SHUT), At(6_000), Sweep, Due, Read],
            &["opened ssh 35000", "closed ssh early", "remove 1"]),
        ("closed just after it opened, events late", &[At(5_000), Knock(SSH), At(5_010), Knock(SHUT), At(6_000), Sweep, Due, Read, At(7_000), Due],
            &["remove 1", "opened ssh 35000", "closed ssh by shut"]),
        ("given again where it was closed in part", &[Knock(BOTH), Read, At(5_000), Knock(SHUT), Read, At(5_033), Due, At(60_033), DueBlind, Sweep, DueRaced(BOTH), At(61_066), Due, Read],
            &["opened both 60000", "remove 1", "remove 2", "refreshed both 120033", "restore 2 both 120033"]),
        ("closed before it was read", &[Knock(SSH), At(1), Knock(SHUT), At(6_000), Sweep, Due, Read, At(6_033), Due],
            &["remove 1", "opened ssh 30000", "closed ssh by shut"]),
        ("closing nothing", &[Knock(SHUT), Read, At(1), Due], &[]),
        ("opened, event lost", &[Lost(SSH), At(1_000), Sweep, Sweep, At(30_033), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1"]),
        ("opened, event read after the sweep", &[Knock(SSH), Sweep, Read, At(30_033), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1"]),
        ("opened, event read after the end", &[Knock(SSH), Sweep, At(30_033), Due, Read, Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1"]),
        ("all of it lost", &[Lost(SSH), At(30_033), Sweep, Due], &["remove 1"]),
        ("map unreadable", &[Knock(SSH), Read, At(30_033), DueBlind, Due, At(31_066), Due],
            &["opened ssh 30000", "closed ssh expired", "remove 1"]),
    ];
    for (name, steps, log) in rows {
        let mut host = SimulatedHost::new();
        for &step in *steps {
            host.step(source(9), step);
        }
        assert_eq!(host.log, *log, "{name}: {steps:?}");
        // What the kernel side gave is there, and nothing else.
        let (real, ideal) = (
            valid(&host.map, host.now_ms),
            valid(&host.ideal, host.now_ms),
        );
        if host.ring.is_empty() {
            assert_eq!(real, ideal, "{name}: {steps:?}");
        }
    }
}

#[test]
fn the_deadline_is_when_the_next_opening_ends() {
    let mut host = SimulatedHost::new();
    assert_eq!(host.ledger.next_deadline(), None);
    for step in [Knock(SSH), At(10), Knock(BELL), Read] {
        host.step(source(9), step);
    }
    assert_eq!(host.ledger.next_deadline(), Some(10_043));
    for step in [At(10_043), DueBlind] {
        host.step(source(9), step);
    }
    assert_eq!(host.ledger.next_deadline(), Some(30_033));
    for step in [At(30_033), DueBlind] {
        host.step(source(9), step);
    }
    assert_eq!(host.ledger.next_deadline(), Some(31_066), "retried");
    for step in [At(31_066), Due] {
        host.step(source(9), step);
    }
    assert_eq!(host.ledger.next_deadline(), None);
}

#[test]
fn sources_and_targets_are_kept_apart() {
    let mut there = door(30_000, &[1], false);
    there.target_id = 7;
    let mut shut = door(0, &[1], true);
    shut.target_id = 7;
    let mut ledger = Ledger::new(vec![door(30_000, &[1], false), there, shut]);
    let event = |number, door, reason: Reason| Event {
        source: source(number),
        door,
        until_ms: 30_000,
        at_ns: 1,
        reason: reason as u8,
        ..Event::default()
    };
    for (number, door) in [(1, 0), (1, 1), (2, 1)] {
        let actions = ledger.receive(&event(number, door, Reason::Opened), 0);
        assert_eq!(actions.len(), 1, "{number} {door}");
    }
    let actions = ledger.receive(&event(1, 2, Reason::Closed), 1);
    let by = Some(2);
    let ending = Ending::Sequence { by };
    assert_eq!(
        actions,
        [LedgerAction::Closed {
            source: source(1),
            door: 1,
            ending
        }],
        "only what is for that destination, only for that source"
    );
}

#[test]
fn invalid_events_change_nothing() {
    let mut ledger = Ledger::new(doors());
    for (name, door, reason) in [
        ("unknown door", 99, Reason::Opened as u8),
        ("unknown closing door", 99, Reason::Closed as u8),
        ("unknown reason", SSH, 255),
        ("not about a grant", SSH, Reason::NextKnock as u8),
        ("no room in the kernel", SSH, Reason::GrantsFull as u8),
    ] {
        let event = Event {
            door,
            reason,
            until_ms: 1,
            ..Event::default()
        };
        assert_eq!(ledger.receive(&event, 0), [], "{name}");
        assert_eq!(ledger.next_deadline(), None, "{name}");
    }
    let stray = Grant {
        until_ms: 50,
        door: 99,
    };
    assert_eq!(ledger.observe(key(source(1), 1), stray, 0), []);
    assert_eq!(ledger.due(82, |_| panic!("not over yet")), []);
    let actions = ledger.due(83, |_| Lookup::Found(stray));
    assert_eq!(
        actions,
        [LedgerAction::Remove {
            key: key(source(1), 1),
            grant: stray
        }]
    );
}

#[test]
fn memory_is_bounded() {
    let mut ledger = Ledger::new(doors());
    let event = |number: u32, reason: Reason, at_ms: u64| Event {
        source: Address::from_v4(Ipv4Addr::from(number).octets()),
        door: if reason == Reason::Closed { SHUT } else { SSH },
        until_ms: at_ms + 30_000,
        at_ns: at_ms * 1_000_000,
        reason: reason as u8,
        ..Event::default()
    };
    for number in 0..ALLOW_MAX + 10 {
        ledger.receive(&event(number, Reason::Opened, 0), 0);
    }
    assert_eq!(ledger.openings().count(), ALLOW_MAX as usize);
    assert_eq!(ledger.untracked(), 10);
    assert_eq!(
        ledger.receive(&event(5, Reason::Refreshed, 1), 1).len(),
        1,
        "known ones are refreshed"
    );
    let closed = ledger.due(30_033, |_| Lookup::Absent);
    assert_eq!(
        closed.len(),
        ALLOW_MAX as usize - 1,
        "all but the refreshed one"
    );
    assert_eq!(
        ledger
            .receive(&event(0, Reason::Opened, 31_000), 31_000)
            .len(),
        1,
        "room again"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_or_late_every_opening_opens_once_and_closes_once(
        are_times_equal in any::<bool>(),
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let mut host = SimulatedHost::new();
        let mut open: HashMap<(Address, u16), u64> = HashMap::new();
        let mut reported = 0;
        let mut now_ms = 1;
        let mut is_exact = true;
        for (number, step, pause) in steps {
            now_ms += pause;
            let at = if are_times_equal { Tick } else { At };
            host.step(source(number), at(now_ms));
            let struck = host.struck.len();
            // What is lost between events that are not read yet can't be put in its place.
            let is_between = struck > 0 || !host.ring.is_empty();
            is_exact &= !is_between || !matches!(step, Lost(_));
            let map = host.map.clone();
            host.step(source(number), step);
            // A grant with the same end as a restored one may, until the next events are read.
            if !matches!(step, DueRaced(_) | Read | ReadOne) {
                prop_assert!(host.struck.len() <= struck, "removed a valid grant: {:?}", step);
            }
            for action in host.actions.drain(reported..) {
                check(&mut open, &map, now_ms, action)?;
            }
            reported = host.actions.len();
            if matches!(step, Read) && host.ring.is_empty() {
                // Events that are read ten seconds late are beyond the ledger's memory.
                is_exact &= host.struck.drain(..).all(|at_ms| now_ms <= at_ms + 10_000);
                if is_exact {
                    let (real, ideal) = (valid(&host.map, now_ms), valid(&host.ideal, now_ms));
                    prop_assert!(real.keys().eq(ideal.keys()), "{real:?} instead of {ideal:?}");
                    let is_longer = real.iter().any(|(key, until_ms)| ideal[key] < *until_ms);
                    prop_assert!(!is_longer, "{real:?} instead of {ideal:?}");
                }
                // A shorter grant may have taken the place of the one that was hit.
                host.ideal = host.map.clone();
                for (&(source, door), &until_ms) in &open {
                    let known = host.ledger.openings().any(|known| known == (source, door, until_ms));
                    prop_assert!(known, "not in the ledger: {} {}", door, until_ms);
                }
            }
        }
        host.step(source(1), Read);
        host.step(source(1), Sweep);
        host.step(source(1), At(now_ms + 100_000));
        for step in [Due, Sweep, Due] {
            host.step(source(1), step);
        }
        for action in host.actions.drain(..) {
            check(&mut open, &BTreeMap::new(), now_ms + 100_000, action)?;
        }
        prop_assert!(open.is_empty(), "never closed: {:?}", open);
        prop_assert!(host.map.is_empty(), "never removed: {:?}", host.map);
        prop_assert_eq!(host.ledger.next_deadline(), None);
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum LedgerStep {
    /// The clock.
    At(u64),
    /// The same; until it moves, knocks have equal times.
    Tick(u64),
    /// A source completes a door's sequence; the event waits to be read.
    Knock(u16),
    /// The same, but the event is lost.
    Lost(u16),
    /// The daemon reads all events.
    Read,
    /// The daemon reads one event.
    ReadOne,
    /// The daemon reads the map.
    Sweep,
    /// The daemon acts on what is due.
    Due,
    /// The same; the kernel side completes a door's sequence before the entries are compared again.
    DueAmid(u16),
    /// The same; the kernel side completes a door's sequence after that, before they are removed.
    DueRaced(u16),
    /// The map can't be read.
    DueBlind,
}

fn source(number: u8) -> Address {
    Address::from_v4([203, 0, 113, number])
}

fn door(open_for_ms: u64, port_groups: &[u16], closes: bool) -> DoorEntry {
    let mut all = [0; PORT_GROUPS_PER_DOOR];
    all[..port_groups.len()].copy_from_slice(port_groups);
    DoorEntry {
        open_for_ms,
        closes: closes.into(),
        port_group_count: port_groups.len() as u16,
        port_groups: all,
        ..DoorEntry::default()
    }
}

fn doors() -> Vec<DoorEntry> {
    vec![
        door(30_000, &[1], false),
        door(60_000, &[1, 2], false),
        door(0, &[1], true),
        door(10_000, &[], false),
        door(20_000, &[3, 4], false),
    ]
}

/// The kernel side, and the daemon around the ledger.
struct SimulatedHost {
    now_ms: u64,
    /// Distinguishes knocks within one millisecond.
    nanos: u64,
    /// The time of all knocks of this timer tick.
    tick_ns: Option<u64>,
    map: BTreeMap<(Address, u16), Grant>,
    ring: VecDeque<Event>,
    ledger: Ledger,
    log: Vec<String>,
    actions: Vec<LedgerAction>,
    /// The map as it would be if nothing were ever removed.
    ideal: BTreeMap<(Address, u16), Grant>,
    /// Whether entries change between their comparison and their removal.
    is_raced: bool,
    /// When removals hit valid grants whose events wait to be read.
    struck: Vec<u64>,
}

impl SimulatedHost {
    fn new() -> Self {
        Self {
            now_ms: 0,
            nanos: 0,
            tick_ns: None,
            map: BTreeMap::new(),
            ideal: BTreeMap::new(),
            ring: VecDeque::new(),
            ledger: Ledger::new(doors()),
            log: Vec::new(),
            actions: Vec::new(),
            is_raced: false,
            struck: Vec::new(),
        }
    }

    fn knock(&mut self, who: Address, index: u16, is_lost: bool) {
        let door = doors()[usize::from(index)];
        use_door(&mut self.ideal, who, index, self.now_ms);
        let reason = use_door(&mut self.map, who, index, self.now_ms);
        self.nanos += 1;
        if !is_lost {
            self.ring.push_back(Event {
                at_ns: self.tick_ns.unwrap_or(self.now_ms * 1_000_000 + self.nanos),
                until_ms: self.now_ms + door.open_for_ms,
                source: who,
                door: index,
                reason: reason as u8,
                ..Event::default()
            });
        }
    }

    fn step(&mut self, who: Address, step: LedgerStep) {
        match step {
            At(now_ms) => {
                self.now_ms = now_ms;
                self.tick_ns = None;
            }
            Tick(now_ms) => {
                self.now_ms = now_ms;
                self.tick_ns = Some(now_ms * 1_000_000);
            }
            Knock(door) => self.knock(who, door, false),
            Lost(door) => self.knock(who, door, true),
            Read => while self.read_one() {},
            ReadOne => {
                self.read_one();
            }
            Sweep => {
                for ((source, port_group), grant) in self.map.clone() {
                    let actions = self
                        .ledger
                        .observe(key(source, port_group), grant, self.now_ms);
                    self.carry_out(actions);
                }
            }
            Due => self.due(|_| {}),
            DueAmid(door) => self.due(|host| host.knock(who, door, false)),
            DueRaced(door) => {
                self.is_raced = true;
                self.due(|host| host.knock(who, door, false));
                self.is_raced = false;
            }
            DueBlind => {
                let actions = self.ledger.due(self.now_ms, |_| Lookup::Failed);
                self.carry_out(actions);
            }
        }
    }

    fn read_one(&mut self) -> bool {
        let Some(event) = self.ring.pop_front() else {
            return false;
        };
        let actions = self.ledger.receive(&event, self.now_ms);
        self.carry_out(actions);
        true
    }

    fn due(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let map = &self.map;
        let actions = self.ledger.due(self.now_ms, |key| {
            map.get(&(key.source, key.port_group))
                .map_or(Lookup::Absent, |&grant| Lookup::Found(grant))
        });
        meanwhile(self);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<LedgerAction>) {
        for action in actions {
            self.log.push(show(&action));
            self.actions.push(action);
            match action {
                LedgerAction::Remove { key, grant } => {
                    let key = (key.source, key.port_group);
                    let Some(&was) = self.map.get(&key) else {
                        continue;
                    };
                    if !self.is_raced && was != grant {
                        continue;
                    }
                    self.map.remove(&key);
                    if self.now_ms < was.until_ms {
                        self.struck.push(self.now_ms);
                    }
                }
                LedgerAction::Restore { key, grant } => {
                    let held = self.map.entry((key.source, key.port_group));
                    if let Entry::Occupied(_) = held {
                        self.ledger.not_missing(&key);
                    }
                    held.or_insert(grant);
                }
                LedgerAction::Opened { .. }
                | LedgerAction::Refreshed { .. }
                | LedgerAction::Closed { .. } => {}
            }
        }
    }
}

/// Returns what the kernel side does with a door.
fn use_door(
    map: &mut BTreeMap<(Address, u16), Grant>,
    who: Address,
    index: u16,
    now_ms: u64,
) -> Reason {
    let door = doors()[usize::from(index)];
    let mut reason = if door.closes == 0 {
        Reason::Opened
    } else {
        Reason::Closed
    };
    for &port_group in &door.port_groups[..door.port_group_count as usize] {
        let key = (who, port_group);
        let old = map
            .get(&key)
            .copied()
            .filter(|grant| now_ms < grant.until_ms);
        let new = Grant {
            until_ms: now_ms + door.open_for_ms,
            door: index,
        };
        if door.closes != 0 {
            // Other CPUs, whose clock may be behind, must see an end that is over.
            let until_ms = now_ms.saturating_sub(SKEW_MS);
            let old = map.get_mut(&key).filter(|old| until_ms < old.until_ms);
            if let Some(old) = old {
                old.until_ms = until_ms;
            }
            continue;
        }
        if old.is_some() {
            reason = Reason::Refreshed;
        }
        if old.is_none_or(|old| old.until_ms < new.until_ms) {
            map.insert(key, new);
        }
    }
    reason
}

fn key(source: Address, port_group: u16) -> GrantKey {
    GrantKey {
        source,
        port_group,
        target_id: 0,
    }
}

fn show(action: &LedgerAction) -> String {
    let name = |door: u16| NAMES[usize::from(door)];
    match *action {
        LedgerAction::Opened { door, until_ms, .. } => format!("opened {} {until_ms}", name(door)),
        LedgerAction::Refreshed { door, until_ms, .. } => {
            format!("refreshed {} {until_ms}", name(door))
        }
        LedgerAction::Closed { door, ending, .. } => {
            let why = match ending {
                Ending::Expired => "expired".to_owned(),
                Ending::Sequence { by: Some(by) } => format!("by {}", name(by)),
                Ending::Sequence { by: None } => "early".to_owned(),
                Ending::Packet => "by a packet".to_owned(),
                Ending::Removed => "removed".to_owned(),
                Ending::Narrowed => "narrowed".to_owned(),
                Ending::Revoked { .. } => "revoked".to_owned(),
            };
            format!("closed {} {why}", name(door))
        }
        LedgerAction::Remove { key, .. } => format!("remove {}", key.port_group),
        LedgerAction::Restore { key, grant } => {
            format!(
                "restore {} {} {}",
                key.port_group,
                name(grant.door),
                grant.until_ms
            )
        }
    }
}

fn any_step() -> impl Strategy<Value = (u8, LedgerStep, u64)> {
    let door = prop_oneof![Just(SSH), Just(BOTH), Just(SHUT), Just(BELL), Just(WEB)];
    let step = prop_oneof![
        4 => door.clone().prop_map(Knock),
        1 => door.clone().prop_map(Lost),
        3 => Just(Read),
        2 => Just(ReadOne),
        1 => Just(Sweep),
        4 => Just(Due),
        2 => door.clone().prop_map(DueAmid),
        2 => door.prop_map(DueRaced),
        1 => Just(DueBlind),
    ];
    let pause = prop_oneof![3 => Just(0), 3 => 1..5_u64, 4 => 1..9_000_u64, 1 => 9_000..70_000_u64];
    (1..3_u8, step, pause)
}

fn valid(map: &BTreeMap<(Address, u16), Grant>, now_ms: u64) -> BTreeMap<(Address, u16), u64> {
    let valid = map.iter().filter(|(_, grant)| now_ms < grant.until_ms);
    valid.map(|(&key, grant)| (key, grant.until_ms)).collect()
}

/// Checks that opening and closing alternate, and that a door closes by time only after its latest end.
fn check(
    open: &mut HashMap<(Address, u16), u64>,
    map: &BTreeMap<(Address, u16), Grant>,
    now_ms: u64,
    action: LedgerAction,
) -> Result<(), TestCaseError> {
    match action {
        LedgerAction::Opened {
            source,
            door,
            until_ms,
            ..
        } => {
            let old = open.insert((source, door), until_ms);
            prop_assert_eq!(old, None, "opened twice");
        }
        LedgerAction::Refreshed {
            source,
            door,
            until_ms,
            ..
        } => {
            let old = open.insert((source, door), until_ms);
            prop_assert!(old.is_some_and(|old| old < until_ms), "refreshed {:?}", old);
        }
        LedgerAction::Closed {
            source,
            door,
            ending,
        } => {
            let until_ms = open.remove(&(source, door));
            prop_assert!(until_ms.is_some(), "closed twice");
            if ending == Ending::Expired {
                prop_assert!(until_ms < Some(now_ms), "closed too early");
                let is_still_open = map.iter().any(|(&(owner, _), grant)| {
                    owner == source && grant.door == door && now_ms < grant.until_ms
                });
                prop_assert!(!is_still_open, "closed while the map has it open");
            }
        }
        LedgerAction::Remove { .. } | LedgerAction::Restore { .. } => {}
    }
    Ok(())
}
