//! Events of the kernel side: the console prints any of them, and the ledger stays consistent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use bytemuck::Zeroable as _;
use jiff::{Timestamp, tz::TimeZone};
use knock_common::{
    Address, Reason,
    event::Event,
    grant::Grant,
    layout::{DoorEntry, GrantKey, PORT_GROUPS_PER_DOOR},
};
use knock_user::{
    config,
    console::{Console, DoorText, LinePrefix, Style},
    ledger::{Ledger, LedgerAction, Lookup},
};

use crate::{input::FuzzInput, text::assert_harmless};

const DOORS: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/5000"]
    open = ["tcp/22"]
    [[door]]
    name = "web"
    knock = ["udp/8100", "tcp/7000"]
    open = ["tcp/80", "tcp/443"]
    [[door]]
    name = "shut"
    knock = ["udp/8200", "tcp/7000", "udp/8000"]
    close = ["tcp/22"]
"#;

/// The most steps of one script.
const STEPS_MOST: usize = 100;

/// Plays a script: events, entries of the allow map, and pauses.
pub fn check(script: &[u8]) {
    let mut consoles = Consoles::new();
    let mut daemon = DaemonModel::new();
    let mut input = FuzzInput(script);
    for _ in 0..STEPS_MOST {
        if input.is_empty() {
            break;
        }
        match input.u8() {
            0..100 => {
                let event = event(&mut input, daemon.now_ms);
                consoles.report(&event);
                daemon.receive(&event, &mut consoles);
            }
            100..140 => {
                let mut bytes = Event::zeroed();
                let raw = input.take(size_of::<Event>());
                bytemuck::bytes_of_mut(&mut bytes)[..raw.len()].copy_from_slice(raw);
                consoles.report(&bytes);
                daemon.receive(&bytes, &mut consoles);
            }
            140..170 => {
                let key = GrantKey {
                    source: source(&mut input),
                    port_group: input.u8().into(),
                    target_id: 0,
                };
                let grant = Grant {
                    until_ms: daemon.now_ms + u64::from(input.u16()),
                    door: input.u8().into(),
                };
                daemon.map.insert((key.source, key.port_group), grant);
                daemon.observe(key, grant, &mut consoles);
            }
            170..200 => daemon.due(&mut consoles),
            200.. => daemon.now_ms += u64::from(input.u16()),
        }
    }
    daemon.end(&mut consoles);
    consoles.end();
}

/// Returns an event with plausible fields, as opposed to any 64 bytes.
fn event(input: &mut FuzzInput<'_>, now_ms: u64) -> Event {
    let reason = input.choice(Reason::ALL);
    Event {
        at_ns: now_ms * 1_000_000,
        until_ms: now_ms + u64::from(input.u16()),
        source: source(input),
        destination: Address::from_v4([192, 0, 2, 1]),
        door: u16::from(input.u8() % 5),
        source_port: 40_000,
        port: input.u16(),
        protocol: input.u8() & 3,
        reason: reason as u8,
        stage: input.u8().into(),
        interface: u32::from(input.u8() & 1),
        user: 0,
        other: Address::ANY,
    }
}

fn source(input: &mut FuzzInput<'_>) -> Address {
    Address::from_v4([203, 0, 113, input.u8() & 3])
}

/// Returns the doors, read once.
fn doors() -> &'static [DoorText] {
    static ALL: OnceLock<Vec<DoorText>> = OnceLock::new();
    ALL.get_or_init(|| match config::parse(DOORS, "seq.toml") {
        Ok(checked) => checked.settings.doors.iter().map(DoorText::from).collect(),
        Err(problems) => panic!("{problems}"),
    })
}

/// The same console three times: as text, as objects, and in knockd's words.
struct Consoles {
    text: Console<Vec<u8>>,
    json: Console<Vec<u8>>,
    knockd: Console<Vec<u8>>,
    reported: usize,
}

impl Consoles {
    fn new() -> Self {
        let doors = doors();
        let console = |json| {
            let style = Style {
                json,
                dry_run: false,
                stamp: LinePrefix::Date,
                zone: TimeZone::UTC,
            };
            let mut console =
                Console::new(Vec::new(), style, doors.to_vec(), Timestamp::UNIX_EPOCH);
            console.set_interfaces(BTreeMap::from([(1, "eth0".to_owned())]));
            console
        };
        Self {
            text: console(false),
            json: console(true),
            knockd: console(false).in_knockds_words(),
            reported: 0,
        }
    }

    fn all(&mut self) -> [&mut Console<Vec<u8>>; 3] {
        [&mut self.text, &mut self.json, &mut self.knockd]
    }

    /// Reports an event unless the ledger reports it, as the daemon does.
    fn report(&mut self, event: &Event) {
        let is_the_ledgers = matches!(
            event.reason(),
            Some(Reason::Opened | Reason::Refreshed | Reason::Closed)
        );
        if is_the_ledgers {
            return;
        }
        for console in self.all() {
            console.event(event);
        }
        self.reported += 1;
    }

    fn act(&mut self, action: &LedgerAction, event: Option<&Event>, at_ns: u64) {
        for console in self.all() {
            console.action(action, event, at_ns);
        }
        let is_reported = matches!(
            action,
            LedgerAction::Opened { .. }
                | LedgerAction::Refreshed { .. }
                | LedgerAction::Closed { .. }
        );
        self.reported += usize::from(is_reported);
    }

    /// Checks that each event and action is one object, and that texts are lines that do nothing to a terminal.
    fn end(mut self) {
        for console in self.all() {
            console.sum_up(u64::MAX, true);
        }
        for console in [self.text, self.knockd] {
            let lines = String::from_utf8_lossy(&console.into_inner()).into_owned();
            assert_harmless(&lines);
            assert!(lines.is_empty() || lines.ends_with('\n'), "{lines:?}");
        }
        let objects = self.json.into_inner();
        let objects: Vec<&[u8]> = objects.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(objects.len(), self.reported);
        for object in objects {
            let object = serde_json::from_slice::<serde_json::Value>(object);
            let Ok(serde_json::Value::Object(fields)) = object else {
                panic!("not an object: {object:?}");
            };
            let time = fields.get("time").and_then(|time| time.as_str());
            let time = time.map(str::parse::<Timestamp>);
            assert!(time.is_some_and(|time| time.is_ok()), "{fields:?}");
            let event = fields.get("event").and_then(|event| event.as_str());
            assert!(event.is_some_and(|event| !event.is_empty()), "{fields:?}");
        }
    }
}

/// The ledger, and the openings that it has reported: a door opens for a source before it is refreshed or closed.
struct DaemonModel {
    now_ms: u64,
    ledger: Ledger,
    map: BTreeMap<(Address, u16), Grant>,
    open: BTreeSet<(Address, u16)>,
}

impl DaemonModel {
    fn new() -> Self {
        let door = |open_for_ms, port_groups: &[u16], closes| {
            let mut all = [0; PORT_GROUPS_PER_DOOR];
            all[..port_groups.len()].copy_from_slice(port_groups);
            DoorEntry {
                open_for_ms,
                closes,
                port_group_count: u16::try_from(port_groups.len()).unwrap_or_default(),
                port_groups: all,
                ..DoorEntry::default()
            }
        };
        Self {
            now_ms: 1_000_000,
            ledger: Ledger::new(vec![
                door(30_000, &[1], 0),
                door(60_000, &[1, 2], 0),
                door(0, &[1], 1),
            ]),
            map: BTreeMap::new(),
            open: BTreeSet::new(),
        }
    }

    fn receive(&mut self, event: &Event, consoles: &mut Consoles) {
        let actions = self.ledger.receive(event, self.now_ms);
        self.follow(&actions, Some(event), consoles);
    }

    fn observe(&mut self, key: GrantKey, grant: Grant, consoles: &mut Consoles) {
        let actions = self.ledger.observe(key, grant, self.now_ms);
        self.follow(&actions, None, consoles);
    }

    fn due(&mut self, consoles: &mut Consoles) {
        let map = &self.map;
        let actions = self.ledger.due(self.now_ms, |key| {
            match map.get(&(key.source, key.port_group)) {
                Some(grant) => Lookup::Found(*grant),
                None => Lookup::Absent,
            }
        });
        self.follow(&actions, None, consoles);
    }

    fn follow(&mut self, actions: &[LedgerAction], event: Option<&Event>, consoles: &mut Consoles) {
        for action in actions {
            match *action {
                LedgerAction::Opened { source, door, .. } => {
                    assert!(self.open.insert((source, door)), "opened twice: {action:?}");
                }
                LedgerAction::Refreshed { source, door, .. } => {
                    assert!(self.open.contains(&(source, door)), "not open: {action:?}");
                }
                LedgerAction::Closed { source, door, .. } => {
                    assert!(self.open.remove(&(source, door)), "not open: {action:?}");
                }
                LedgerAction::Remove { key, grant } => {
                    let key = (key.source, key.port_group);
                    let is_same = self.map.get(&key) == Some(&grant);
                    let removed = is_same.then(|| self.map.remove(&key)).flatten();
                    // After a closing sequence, a newer grant with the same end may go, too: its own event
                    // brings it back.
                    let is_valid = removed.is_some_and(|grant| grant.until_ms > self.now_ms);
                    assert!(
                        event.is_some() || !is_valid,
                        "a valid grant is removed: {removed:?}"
                    );
                }
                LedgerAction::Restore { key, grant } => {
                    self.map
                        .entry((key.source, key.port_group))
                        .or_insert(grant);
                }
            }
            consoles.act(action, event, self.now_ms.saturating_mul(1_000_000));
        }
        let open: BTreeSet<_> = self
            .ledger
            .openings()
            .map(|(source, door, _)| (source, door))
            .collect();
        assert_eq!(open, self.open);
    }

    /// Lets every grant expire, and expects that every door is reported as closed.
    fn end(mut self, consoles: &mut Consoles) {
        self.map.clear();
        self.now_ms = u64::MAX / 1_000_000;
        for _ in 0..STEPS_MOST {
            let Some(deadline_ms) = self.ledger.next_deadline() else {
                break;
            };
            if deadline_ms > self.now_ms {
                return;
            }
            self.due(consoles);
        }
        assert!(self.open.is_empty(), "never closed: {:?}", self.open);
    }
}
