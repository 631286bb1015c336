//! The judge in a simulated environment: runs a script of frames and pauses, and compares each verdict
//! with the one that the configuration asks for.
//!
//! The expected result follows from the settings, the grants in the world and the history of frames, not from the
//! compiled tables, so that a wrong rule in a table is found too.

mod frame;
mod history;
mod worlds;

use std::net::IpAddr;

use knock_common::{
    Address, Judgement, Reason, Verdict,
    access::Flow,
    answer::{Memory, rewrite_as_reply},
    decide,
    grant::Grant,
    layout::{Features, FlowKey, GrantKey},
    packet::{Protocol, flag},
    sim::Sim,
    time::Moment,
};
use knock_sequence::{Knock, Ports};
use knock_user::model::settings::{AcceptedSequence, Decoys, Door, Exempt, Settings};

use self::{
    history::{History, PastPacket},
    worlds::Compiled,
};
use crate::{input::FuzzInput, parser::reference};

/// A tick of the kernel side's clock, in nanoseconds.
const TICK_NS: u64 = 1 << 22;
/// Well after boot, when the presence filter is still empty.
const START_TICKS: u64 = 10_000;
/// Frames and pauses of a script.
const STEPS_MOST: usize = 200;

/// Plays a script: the number of a world, then frames and pauses.
pub fn check(script: &[u8]) {
    let mut input = FuzzInput(script);
    let worlds = worlds::all();
    let compiled = &worlds[usize::from(input.u8()) % worlds.len()];
    let mut play = Play {
        compiled,
        sim: compiled.tables.simulate(),
        tick: START_TICKS,
        history: History::default(),
        cookie: 0,
    };
    for _ in 0..STEPS_MOST {
        if input.is_empty() {
            break;
        }
        match input.u8() {
            0..200 => play.frame(&frame::drawn(&mut input, &compiled.ports, play.cookie)),
            200..230 => play.tick += u64::from(input.u16()),
            230.. => {
                let length = input.u8().into();
                play.frame(input.take(length));
            }
        }
    }
}

/// A world, and what has happened in it.
struct Play {
    compiled: &'static Compiled,
    sim: Sim,
    tick: u64,
    history: History,
    /// The sequence number of the last SYN with ACK that was answered.
    cookie: u32,
}

impl Play {
    /// Judges a frame and checks the result.
    fn frame(&mut self, frame: &[u8]) {
        let now = Moment::from_nanos(self.tick * TICK_NS);
        self.sim.set_now(now);
        self.sim.answer.set(None);
        let before = StateBefore {
            expected: self.expected(frame, now),
            grants: self.grants(now),
            used: self.sim.used.entries.borrow().len(),
            events: self.sim.events.borrow().len(),
        };
        let judgement = decide(frame, &self.sim);
        if let ExpectedResult::Knock(packet) = before.expected {
            self.history.note(self.tick, packet);
        }
        let context = format!("{judgement:?} for {frame:02x?} at tick {}", self.tick);
        check_verdict(before.expected, judgement, &context);
        self.check_grants(&before, judgement.reason, now, &context);
        for event in &self.sim.events.borrow()[before.events..] {
            assert!(event.reason().is_some(), "{event:?}");
            assert_eq!(event.at_ns, now.nanos(), "{event:?}");
        }
        self.check_answer(frame, judgement.verdict());
    }

    /// Returns the result that a frame must have.
    fn expected(&self, frame: &[u8], now: Moment) -> ExpectedResult {
        let read = match reference::read(frame) {
            Ok(read) => read,
            Err(reason) => return ExpectedResult::Unreadable(reason),
        };
        let kind = self.compiled.kind(read.protocol, read.destination_port);
        let packet = read
            .destination
            .and_then(|destination| PastPacket::of(&read, read.source?, destination));
        match (kind, packet) {
            (PortRole::Other, packet) => ExpectedResult::Pass(packet.err()),
            // Knocks to a group of hosts do not count.
            (PortRole::Knock, packet) if !read.unicast => ExpectedResult::Pass(packet.err()),
            (PortRole::Protected, Err(reason)) => ExpectedResult::Unreadable(reason),
            (PortRole::Knock, Err(reason)) => ExpectedResult::BadKnock(reason),
            (PortRole::Protected, Ok(packet)) => ExpectedResult::Protected {
                is_entitled: self.is_entitled(&packet, now),
            },
            (PortRole::Knock, Ok(packet)) => ExpectedResult::Knock(packet),
        }
    }

    /// Checks that a new grant belongs to the source that made the knocks, and lasts no longer than the door's
    /// `open_for`.
    fn check_grants(&self, before: &StateBefore, reason: Reason, now: Moment, context: &str) {
        for (key, grant) in self.grants(now) {
            let old = before.grants.iter().find(|(other, _)| *other == key);
            if old.is_some_and(|(_, old)| old.until_ms >= grant.until_ms) {
                continue;
            }
            let opened = matches!(
                reason,
                Reason::Opened | Reason::Refreshed | Reason::GrantsFull
            );
            let ExpectedResult::Knock(packet) = before.expected else {
                panic!("a grant without a knock: {context}");
            };
            assert!(opened, "a grant without an opening: {context}");
            assert_eq!(
                key.source, packet.source,
                "a grant for another source: {context}"
            );
            let name = &self.compiled.tables.names[usize::from(grant.door)];
            let door = self.compiled.door(name);
            let open_ms = u64::try_from(door.open_for.as_millis()).unwrap_or(u64::MAX);
            assert!(
                grant.until_ms <= now.millis() + open_ms,
                "too long a grant of {name}: {context}"
            );
            let knocked =
                |knocks: &[Knock]| self.history.has_knocked(door, knocks, self.tick, &packet);
            if door.dynamic.is_none() {
                assert!(
                    knocked(&door.knock),
                    "{name} opened without its knocks: {context}"
                );
                continue;
            }
            assert_eq!(
                self.sim.used.entries.borrow().len(),
                before.used + 1,
                "a sequence that {name} may use again: {context}"
            );
            let mut sequences = self.compiled.sequences_of(name);
            assert!(
                sequences
                    .any(|sequence| !sequence.per_source.is_empty() || knocked(&sequence.knocks)),
                "{name} opened without its knocks: {context}"
            );
        }
    }

    /// Returns whether a packet to a protected port has to pass: its source is trusted or has a grant, or the packet
    /// belongs to a connection that is kept.
    fn is_entitled(&self, packet: &PastPacket, now: Moment) -> bool {
        let settings = &self.compiled.settings;
        let address = IpAddr::from(packet.source);
        let mut trust = settings.trust.iter();
        trust.any(|prefix| covers(prefix.address, prefix.bits, address))
            || self.has_grant(packet, now)
            || settings.established.keep && !packet.opens_tcp() && self.is_kept(packet, now)
    }

    fn is_kept(&self, packet: &PastPacket, now: Moment) -> bool {
        let idle_ms = self.compiled.settings.established.idle_ms();
        let wanted = FlowKey {
            source: packet.source,
            source_port: packet.source_port,
            port: packet.to.port,
            target_id: self.compiled.target_id(packet.destination),
            protocol: packet.to.protocol as u16,
        };
        let seen = self.sim.flows.value(&wanted);
        let until_ms = seen.map(|seen| Flow::from_word(seen).until_ms(wanted.idle_ms(idle_ms)));
        until_ms.is_some_and(|until_ms| now.millis() < until_ms)
    }

    /// Returns whether there is a grant for the port, of any door: a grant is for a port group, which several doors may
    /// open.
    fn has_grant(&self, packet: &PastPacket, now: Moment) -> bool {
        let port = Ports::from(packet.to);
        self.grants(now).iter().any(|(key, _)| {
            let opened = self.compiled.tables.port_groups.get(&key.port_group);
            let opens = opened.is_some_and(|ports| ports.iter().any(|ports| ports.overlaps(port)));
            let is_here =
                key.target_id == 0 || key.target_id == self.compiled.target_id(packet.destination);
            key.source == packet.source && opens && is_here
        })
    }

    fn grants(&self, now: Moment) -> Vec<(GrantKey, Grant)> {
        let entries = self.sim.allow.entries.borrow();
        let grants = entries
            .iter()
            .map(|(key, word)| (*key, Grant::from_word(word.get())));
        grants.filter(|(_, grant)| grant.is_valid(now)).collect()
    }

    /// Checks that an answer has the addresses and ports of its frame exchanged, and is not longer than the frame.
    fn check_answer(&mut self, frame: &[u8], verdict: Verdict) {
        let Some(answer) = self.sim.answer.get() else {
            assert_ne!(verdict, Verdict::Answer, "no answer to {frame:02x?}");
            return;
        };
        assert!(self.sim.features.has(Features::ANSWERS), "{frame:02x?}");
        let mut bytes = frame.to_vec();
        let mut memory = Memory(&mut bytes);
        if rewrite_as_reply(&mut memory, answer).is_none() {
            return;
        }
        let answer = memory.0.to_vec();
        assert!(answer.len() <= frame.len(), "longer: {answer:02x?}");
        let (Ok(asked), Ok(answered)) = (reference::read(frame), reference::read(&answer)) else {
            panic!("{frame:02x?} is answered with {answer:02x?}");
        };
        assert_eq!(
            (answered.source, answered.source_port, answered.protocol),
            (asked.destination, asked.destination_port, asked.protocol),
            "{answer:02x?}"
        );
        assert_eq!(
            (answered.destination, answered.destination_port),
            (asked.source, asked.source_port),
            "{answer:02x?}"
        );
        if answered.flags == flag::SYN | flag::ACK {
            self.cookie = frame::sequence(&answer).unwrap_or(self.cookie);
        }
    }
}

/// The state before a frame was judged, and the result that it must have.
struct StateBefore {
    expected: ExpectedResult,
    grants: Vec<(GrantKey, Grant)>,
    /// How many sequences were used.
    used: usize,
    /// How many events there were.
    events: usize,
}

/// The result that a frame must have.
#[derive(Clone, Copy, Debug)]
enum ExpectedResult {
    /// It has this reason and no other.
    Unreadable(Reason),
    /// It passes, or has this reason if its addresses were read.
    Pass(Option<Reason>),
    /// It passes if it is entitled to, and only then.
    Protected { is_entitled: bool },
    /// It has this reason, unless its flags are not those of a knock, so that its addresses are not read.
    BadKnock(Reason),
    /// It does not pass if it is a knock.
    Knock(PastPacket),
}

fn check_verdict(expected: ExpectedResult, judgement: Judgement, context: &str) {
    let passes = judgement.verdict() == Verdict::Pass;
    match expected {
        ExpectedResult::Unreadable(reason) => assert_eq!(judgement.reason, reason, "{context}"),
        ExpectedResult::BadKnock(reason) => assert!(
            [reason, Reason::OtherFlags].contains(&judgement.reason),
            "a knock from an invalid source: {context}"
        ),
        ExpectedResult::Pass(unreadable) => assert!(
            passes || unreadable == Some(judgement.reason),
            "an unused port: {context}"
        ),
        ExpectedResult::Protected { is_entitled } => {
            assert_eq!(passes, is_entitled, "a protected port: {context}");
        }
        ExpectedResult::Knock(_) => assert!(
            !passes || judgement.is_let_pass || judgement.reason == Reason::OtherFlags,
            "a knock: {context}"
        ),
    }
}

/// The role of a port by the settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PortRole {
    Protected,
    /// Also a decoy.
    Knock,
    Other,
}

impl Compiled {
    fn kind(&self, protocol: Protocol, port: u16) -> PortRole {
        let Settings {
            doors,
            protect,
            decoys,
            exempt,
            ..
        } = &self.settings;
        let port = Ports {
            protocol,
            first: port,
            last: port,
        };
        let is_in = |ports: &[Ports]| ports.iter().any(|ports| ports.overlaps(port));
        if is_in(protect) || doors.iter().any(|door| is_in(door.opened())) {
            return PortRole::Protected;
        }
        let is_knock = |door: &Door| door.knock.iter().any(|&knock| port.overlaps(knock.into()));
        if doors.iter().any(is_knock) || self.changing.iter().any(|ports| ports.overlaps(port)) {
            return PortRole::Knock;
        }
        match (exempt, decoys) {
            (Exempt::Listed(ports), _) if is_in(ports) => PortRole::Other,
            (_, Decoys::Listed(ports)) if is_in(ports) => PortRole::Knock,
            _ => PortRole::Other,
        }
    }

    fn door(&self, name: &str) -> &Door {
        let found = self.settings.doors.iter().find(|door| door.name == name);
        found.unwrap_or_else(|| panic!("no door {name:?}"))
    }

    /// Returns the changing sequences of a door.
    fn sequences_of(&self, name: &str) -> impl Iterator<Item = &AcceptedSequence> {
        let place = self
            .settings
            .doors
            .iter()
            .position(|door| door.name == name);
        let sequences = place.and_then(|place| self.sequences.get(&place));
        sequences.into_iter().flatten()
    }

    /// Returns the class of a destination address.
    fn target_id(&self, destination: Address) -> u16 {
        let mut targets = self.tables.targets.iter();
        let found = targets.find(|(target, _)| *target == destination);
        found.map_or(0, |(_, target_id)| *target_id)
    }
}

/// Returns whether a prefix holds an address.
fn covers(prefix: IpAddr, bits: u8, address: IpAddr) -> bool {
    let bits = usize::from(bits);
    match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            (prefix.to_bits() ^ address.to_bits()).leading_zeros() as usize >= bits
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            (prefix.to_bits() ^ address.to_bits()).leading_zeros() as usize >= bits
        }
        _ => false,
    }
}
