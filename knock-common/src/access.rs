//! Who may pass to a protected port: grants, flows, trusted prefixes.

use crate::{
    Address, Bytes, Env, Reason, Stat,
    answer::Answer,
    env::{Judged, Table, Word},
    event::{self, EventHead},
    layout::{Door, Features, FlowKey, GrantKey, PortKind, PortRule, UsedKey, port_index},
    packet::{Protocol, Segment},
    packet_info::PacketInfo,
    presence::{self, Presence},
    time::{Moment, SKEW_MS},
};

/// A handshake that begins this close to the end of its grant is recorded at its SYN, in
/// milliseconds. Otherwise the flow begins with the first packet after the SYN: the SYNs of a scan
/// by an allowed address don't fill the table, though forged later packets of one can.
const HANDSHAKE_MS: u64 = 4_000;
/// CPUs that write one grant at the same moment are few.
const TRIES: usize = 4;

/// The end of a grant and the door that gave it: one word, in which the later end is the greater.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// When it ends, in milliseconds since boot.
    pub until_ms: u64,
    /// Index of the door.
    pub door: u16,
}

impl Grant {
    /// The word that the map holds.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.until_ms << 16 | self.door as u64
    }

    /// The grant that a word of the map means.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            until_ms: word >> 16,
            door: word as u16,
        }
    }

    /// Whether it lets packets pass at `now`.
    #[inline(always)]
    pub const fn is_valid(self, now: Moment) -> bool {
        now.millis() < self.until_ms
    }
}

/// A connection that was let in.
///
/// It ends when nothing comes for a while, and only then: a FIN or RST can be forged by whoever
/// guesses its ports, and a connection that has ended by itself needs no protection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    /// The last packet from the other end, in milliseconds since boot.
    pub seen_ms: u64,
}

impl Flow {
    /// The word that the map holds.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.seen_ms
    }

    /// The flow that a word of the map means.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { seen_ms: word }
    }

    /// When it ends if nothing more comes, in milliseconds since boot.
    #[inline(always)]
    pub const fn until_ms(self, idle_ms: u64) -> u64 {
        self.seen_ms.saturating_add(idle_ms)
    }
}

/// Judges a packet to a protected port.
///
/// # Errors
/// The reason why the addresses can't be read.
#[inline(always)]
pub fn protected<B: Bytes + ?Sized, W: Env>(
    bytes: &B,
    segment: &Segment,
    rule: PortRule,
    env: &W,
) -> Judged<Reason> {
    let info = PacketInfo::of(bytes, segment, env)?;
    if Presence::of(env, info.source).may_pass(info.now()) {
        let guest = Guest {
            env,
            segment,
            info: &info,
            port_group: rule.port_group,
        };
        if let Some(reason) = guest.judge() {
            return Ok(reason);
        }
    }
    if env.features().has(Features::TRUST) && env.is_trusted(info.source) {
        return Ok(Reason::Trusted);
    }
    event::tell(env, &info, EventHead::new(Reason::NoGrant), 0);
    Ok(Reason::NoGrant)
}

/// A packet to a protected port from a source that may have been let in.
struct Guest<'a, W> {
    env: &'a W,
    segment: &'a Segment,
    info: &'a PacketInfo,
    port_group: u16,
}

impl<W: Env> Guest<'_, W> {
    #[inline(always)]
    fn judge(&self) -> Option<Reason> {
        let keep = self.env.features().has(Features::KEEP);
        // A SYN asks for a new connection, even with the ports of an old one: it needs a grant.
        let syn = self.segment.opens() && self.segment.protocol == Protocol::Tcp;
        if keep && !syn && self.flow_goes_on() {
            return Some(Reason::Flow);
        }
        let grant = self.grant(0).or_else(|| match self.info.target_id {
            0 => None,
            target_id => self.grant(target_id),
        })?;
        let ends_soon = grant.until_ms.saturating_sub(self.info.now().millis()) < HANDSHAKE_MS;
        if keep && !self.segment.ends() && (!syn || ends_soon) {
            self.record_flow();
        }
        Some(Reason::Granted)
    }

    #[inline(always)]
    fn grant(&self, target_id: u16) -> Option<Grant> {
        let key = GrantKey {
            source: self.info.source,
            port_group: self.port_group,
            target_id,
        };
        let grant = Grant::from_word(self.env.allow().find(&key)?.load());
        grant.is_valid(self.info.now()).then_some(grant)
    }

    #[inline(always)]
    fn flow_key(&self) -> FlowKey {
        let PacketInfo {
            source,
            source_port,
            port,
            target_id,
            protocol,
            ..
        } = *self.info;
        FlowKey {
            source,
            source_port,
            port,
            target_id,
            protocol: protocol.into(),
        }
    }

    #[inline(always)]
    fn idle_ms(&self) -> u64 {
        let idle_ms = self.env.config().map(|config| config.flow_idle_ms);
        let [tcp, udp] = idle_ms.unwrap_or_default();
        match self.segment.protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
        }
    }

    #[inline(always)]
    fn flow_now(&self) -> Flow {
        Flow {
            seen_ms: self.info.now().millis(),
        }
    }

    /// Refreshes the flow of this packet; `false` if there is none.
    #[inline(always)]
    fn flow_goes_on(&self) -> bool {
        let Some(word) = self.env.flows().find(&self.flow_key()) else {
            return false;
        };
        let flow = Flow::from_word(word.load());
        let idle_ms = self.idle_ms();
        let seen = self.flow_now();
        if seen.seen_ms >= flow.until_ms(idle_ms) {
            return false;
        }
        if seen != flow {
            word.store(seen.to_word());
            // Once a second is enough for a hint, and spares the flow's other packets the write.
            if seen.seen_ms >> 10 != flow.seen_ms >> 10 {
                self.hint_flow(idle_ms);
            }
        }
        true
    }

    #[inline(always)]
    fn record_flow(&self) {
        self.hint_flow(self.idle_ms());
        let key = self.flow_key();
        let word = self.flow_now().to_word();
        if let Some(old) = self.env.flows().find(&key) {
            old.store(word);
        } else if !self.env.flows().insert(&key, word) {
            self.env.count(Stat::FlowsRefused);
        }
    }

    #[inline(always)]
    fn hint_flow(&self, idle_ms: u64) {
        // Two seconds more than the flow: it is refreshed without telling the hint for one.
        let until = self.info.now().after_millis(idle_ms.saturating_add(2_000));
        presence::expect_pass(self.env, self.info.source, until);
    }
}

/// A sequence that was completed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Completed {
    /// Index of its entry in `DOORS`.
    pub entry: u16,
    /// How many knocks it took.
    pub stage: u8,
    /// Ticks from the first knock to the last.
    pub elapsed: u32,
}

/// Gives or ends the grants of a door, if the sequence took no longer than it may, and was not used
/// before if it is good once.
///
/// Returns [`Reason::Opened`], [`Reason::Refreshed`], [`Reason::Closed`], [`Reason::GrantsFull`],
/// [`Reason::TooLate`] or [`Reason::SequenceReused`], and tells user space.
#[inline(always)]
pub fn use_door<W: Env>(env: &W, info: &PacketInfo, completed: Completed) -> Reason {
    let Some(door) = env.door(completed.entry.into()) else {
        return Reason::TooLate;
    };
    let now = info.now();
    let begun = now.before_ticks(completed.elapsed);
    let (reason, until_ms) =
        if completed.elapsed > door.sequence_timeout_ticks || !is_good(door, begun) {
            (Reason::TooLate, 0)
        } else if !spend(env, door, now) {
            (Reason::SequenceReused, 0)
        } else if door.closes != 0 {
            close(env, door, info.source, now);
            (Reason::Closed, now.millis())
        } else {
            let until_ms = now.millis().saturating_add(door.open_for_ms);
            let grant = Grant {
                until_ms,
                door: door.number,
            };
            let reason = open(env, door, grant, info.source, now);
            if reason == Reason::Opened
                && env.features().has(Features::ANSWERS)
                && !door.reply.is_empty()
                && may_be_told(env, info)
            {
                env.answer(Answer::port(door.reply));
            }
            (reason, until_ms)
        };
    event::tell(
        env,
        info,
        EventHead::at(reason, door.number, completed.stage),
        until_ms,
    );
    reason
}

/// The lowest port that a client gets from its host without asking for it.
const FIRST_CLIENT_PORT: u16 = 1024;

/// Whether a datagram may be answered: not if the answer would go to what could answer it in turn, a
/// service or another knock. A source address is easily forged, and two hosts that answer each other
/// never stop (CVE-2024-2169). Nor is a grant that is only refreshed told again.
#[inline(always)]
fn may_be_told<W: Env>(env: &W, info: &PacketInfo) -> bool {
    let to = port_index(Protocol::Udp, info.source_port);
    match env.port(to).kind() {
        PortKind::Knock | PortKind::Decoy => false,
        PortKind::Ordinary | PortKind::Exempt | PortKind::Protected => {
            info.source_port >= FIRST_CLIENT_PORT
        }
    }
}

/// Whether an attempt began while its sequence was good.
#[inline(always)]
const fn is_good(door: &Door, begun: Moment) -> bool {
    door.sequence_id == 0 || begun.millis() < door.good_until_ms
}

/// Uses up a sequence that is good once; `false` if somebody was faster, or nobody could tell the
/// next one that it is used.
#[inline(always)]
fn spend<W: Env>(env: &W, door: &Door, now: Moment) -> bool {
    let key = UsedKey {
        replay_domain: door.replay_domain,
        sequence_id: door.sequence_id,
    };
    door.sequence_id == 0 || env.used().insert(&key, now.millis())
}

#[inline(always)]
fn open<W: Env>(env: &W, door: &Door, new: Grant, source: Address, now: Moment) -> Reason {
    presence::expect_pass(env, source, now.after_millis(door.open_for_ms));
    let mut reason = Reason::Opened;
    for port_group in port_groups(door) {
        let key = GrantKey {
            source,
            port_group,
            target_id: door.target_id,
        };
        match give_grant(env, &key, new, now) {
            Given::New => {}
            Given::Refreshed if reason == Reason::Opened => reason = Reason::Refreshed,
            Given::Refreshed => {}
            Given::NoRoom => reason = Reason::GrantsFull,
        }
    }
    reason
}

#[inline(always)]
fn close<W: Env>(env: &W, door: &Door, source: Address, now: Moment) {
    // Other CPUs, whose clock may be behind, must see an end that is over.
    let until_ms = now.millis().saturating_sub(SKEW_MS);
    for port_group in port_groups(door) {
        let key = GrantKey {
            source,
            port_group,
            target_id: door.target_id,
        };
        let Some(word) = env.allow().find(&key) else {
            continue;
        };
        for _ in 0..TRIES {
            let old = Grant::from_word(word.load());
            let new = Grant { until_ms, ..old };
            if old.until_ms <= until_ms || word.replace(old.to_word(), new.to_word()) {
                break;
            }
        }
    }
}

#[inline(always)]
fn port_groups(door: &Door) -> impl Iterator<Item = u16> + '_ {
    (0..door.port_group_count)
        .zip(&door.port_groups)
        .map(|(_, port_group)| *port_group)
}

enum Given {
    New,
    Refreshed,
    NoRoom,
}

#[inline(always)]
fn give_grant<W: Env>(env: &W, key: &GrantKey, new: Grant, now: Moment) -> Given {
    for _ in 0..TRIES {
        let Some(word) = env.allow().find(key) else {
            if env.allow().insert(key, new.to_word()) {
                return Given::New;
            }
            continue;
        };
        let old = Grant::from_word(word.load());
        let given = if old.is_valid(now) {
            Given::Refreshed
        } else {
            Given::New
        };
        // The longest end wins, also against another door's.
        if old.until_ms >= new.until_ms || word.replace(old.to_word(), new.to_word()) {
            return given;
        }
    }
    Given::NoRoom
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{answer::Text, sim::Sim};

    #[test]
    fn what_is_replied_when() {
        let door = Door {
            open_for_ms: 30_000,
            sequence_timeout_ticks: 10,
            port_group_count: 1,
            reply: Text::of(22),
            ..Door::default()
        };
        let silent = Door {
            reply: Text::default(),
            ..door
        };
        let closing = Door { closes: 1, ..door };
        let answers = Features::ANSWERS;
        let told = Some(Answer::port(Text::of(22)));
        for (name, features, door, capacity, elapsed, reason, answer) in [
            ("opened", answers, door, 1, 10, Reason::Opened, told),
            ("too late", answers, door, 1, 11, Reason::TooLate, None),
            ("no room", answers, door, 0, 10, Reason::GrantsFull, None),
            (
                "tells nothing",
                answers,
                silent,
                1,
                10,
                Reason::Opened,
                None,
            ),
            ("closing", answers, closing, 1, 10, Reason::Closed, None),
            (
                "not used",
                Features::default(),
                door,
                1,
                10,
                Reason::Opened,
                None,
            ),
        ] {
            let mut sim = Sim {
                features,
                doors: [door].into(),
                ..Sim::default()
            };
            sim.allow.capacity = capacity;
            let completed = Completed {
                entry: 0,
                stage: 3,
                elapsed,
            };
            let used = use_door(&sim, &from(40_000), completed);
            assert_eq!((used, sim.answer.get()), (reason, answer), "{name}");
        }
    }

    fn from(source_port: u16) -> PacketInfo {
        PacketInfo {
            source_port,
            ..PacketInfo::default()
        }
    }

    #[test]
    fn to_whom_is_replied() {
        let door = Door {
            open_for_ms: 30_000,
            port_group_count: 1,
            reply: Text::of(22),
            ..Door::default()
        };
        let sim = || Sim {
            features: Features::ANSWERS,
            doors: [door].into(),
            ports: [
                (Protocol::Udp, 8000, PortRule::knock(0, 1)),
                (Protocol::Udp, 8001, PortRule::DECOY),
                (Protocol::Udp, 8002, PortRule::protected(0)),
                (Protocol::Udp, 8003, PortRule::EXEMPT),
                (Protocol::Tcp, 8004, PortRule::knock(0, 1)),
            ]
            .map(|(protocol, port, rule)| (port_index(protocol, port), rule))
            .into(),
            ..Sim::default()
        };
        let completed = Completed {
            entry: 0,
            stage: 1,
            elapsed: 0,
        };
        for (name, source_port, is_told) in [
            ("a client", 40_000, true),
            ("no port", 0, false),
            ("echo", 7, false),
            ("chargen", 19, false),
            ("DNS", 53, false),
            ("the last port of services", 1023, false),
            ("the first port of clients", 1024, true),
            ("a knock", 8000, false),
            ("a decoy", 8001, false),
            ("a protected port", 8002, true),
            ("an exempt port", 8003, true),
            ("a knock over TCP", 8004, true),
        ] {
            let sim = sim();
            let opened = use_door(&sim, &from(source_port), completed);
            assert_eq!(opened, Reason::Opened, "{name}");
            assert_eq!(sim.answer.take().is_some(), is_told, "{name}");
            let again = use_door(&sim, &from(source_port), completed);
            assert_eq!(again, Reason::Refreshed, "{name}");
            assert_eq!(sim.answer.take(), None, "{name}, again");
        }
    }
}
