//! Gives or ends the grants of a door whose sequence is complete.

use crate::{
    Reason, Subprograms,
    answer::Answer,
    emit,
    env::{Table, Word},
    event::EventHead,
    grant::{Completed, Grant, GrantChange},
    layout::{DoorEntry, Features, GrantKey, PortKind, UsedKey, port_index},
    packet::Protocol,
    packet_info::PacketInfo,
    presence::{self, Presence},
    time::{Moment, SKEW_MS},
};

/// Few CPUs write one grant at the same moment.
const TRIES: usize = 4;

/// Gives or ends the grants of a door, unless the sequence took too long, or is a one-time or time-based sequence that
/// was used before.
///
/// Returns [`Reason::Opened`], [`Reason::Refreshed`], [`Reason::Closed`], [`Reason::GrantsFull`],
/// [`Reason::TooLate`], [`Reason::SourceNotAllowed`], [`Reason::CutOff`] or [`Reason::SequenceReused`], and reports it.
#[inline(always)]
pub fn use_door<E: Subprograms>(env: &E, info: &PacketInfo, completed: Completed) -> Reason {
    let Some(door) = env.door(completed.entry.into()) else {
        return Reason::TooLate;
    };
    let now = info.now();
    let begun = now.before_ticks(completed.elapsed);
    let mut until_ms = 0;
    let reason =
        if completed.elapsed > door.sequence_timeout_ticks || !has_begun_in_time(door, begun) {
            Reason::TooLate
        } else if is_elsewhere(env, info, door, false) {
            Reason::SourceNotAllowed
        } else if is_cut_off(env, door, now) {
            Reason::CutOff
        } else if !spend(env, door, now) {
            Reason::SequenceReused
        } else {
            let change = GrantChange::of(door, door.open_for_ms);
            until_ms = change.until_ms(now);
            match open_at_once(env, info, door, change) {
                true => Reason::Opened,
                false => env.change_grants(info, completed.entry, change),
            }
        };
    if reason == Reason::Opened
        && env.features().has(Features::ANSWERS)
        && !door.reply.is_empty()
        && may_reply(env, info)
    {
        env.answer(Answer::port(door.reply));
    }
    emit::report_here(
        env,
        info,
        EventHead::at(reason, door.number, completed.stage),
        until_ms,
    );
    reason
}

/// Gives the grant of a door with one port group to a source without one, as most knocks that open do. Returns `false`
/// if that is not so, or if there is no room: then nothing was decided.
#[inline(always)]
fn open_at_once<E: Subprograms>(
    env: &E,
    info: &PacketInfo,
    door: &DoorEntry,
    change: GrantChange,
) -> bool {
    let now = info.now();
    let presence = Presence::of(env, info.source);
    let is_usual = !change.closes() && door.port_group_count == 1;
    if !is_usual || env.features().has(Features::GRANT_PREFIX) || presence.may_pass(now) {
        return false;
    }
    let until_ms = change.until_ms(now);
    presence.expect_pass(env, info.source, Moment::default().after_millis(until_ms));
    let [port_group, ..] = door.port_groups;
    let key = GrantKey {
        source: info.source,
        port_group,
        target_id: door.target_id,
    };
    let grant = Grant {
        until_ms,
        door: door.number,
    };
    env.allow().insert(&key, grant.to_word())
}

/// Gives or ends the grants of the door with this entry for the source of a packet, or for its prefix.
///
/// Returns [`Reason::Opened`], [`Reason::Refreshed`], [`Reason::Closed`] or [`Reason::GrantsFull`].
#[inline(always)]
pub fn change_grants<E: Subprograms>(
    env: &E,
    info: &PacketInfo,
    entry: u16,
    change: GrantChange,
) -> Reason {
    let Some(door) = env.door(entry.into()) else {
        return Reason::TooLate;
    };
    let now = info.now();
    // One key for all of its port groups: there is no room on the stack for another.
    let mut key = GrantKey {
        source: match env.features().has(Features::GRANT_PREFIX) {
            true => door.grant_prefix.first_of(info.source),
            false => info.source,
        },
        port_group: 0,
        target_id: door.target_id,
    };
    if change.closes() {
        close(env, door, &mut key, now);
        return Reason::Closed;
    }
    let grant = Grant {
        until_ms: change.until_ms(now),
        door: door.number,
    };
    open(env, door, &mut key, grant, now)
}

/// The lowest port that a host assigns to clients.
const FIRST_CLIENT_PORT: u16 = 1024;

/// Returns whether a datagram may be answered: not if the reply would go to a port that could answer it in turn, that
/// of a service or a knock. Source addresses are easily forged, and two hosts that answer each other never stop
/// (CVE-2024-2169).
#[inline(always)]
pub(crate) fn may_reply<E: Subprograms>(env: &E, info: &PacketInfo) -> bool {
    let to = port_index(Protocol::Udp, info.source_port);
    match env.port(to).kind() {
        PortKind::Knock | PortKind::Decoy | PortKind::Spa => false,
        PortKind::Ordinary | PortKind::Exempt | PortKind::Protected => {
            info.source_port >= FIRST_CLIENT_PORT
        }
    }
}

/// Returns whether a door is limited to prefixes that do not have the source of a packet.
#[inline(always)]
pub(crate) fn is_elsewhere<E: Subprograms>(
    env: &E,
    info: &PacketInfo,
    door: &DoorEntry,
    is_spa: bool,
) -> bool {
    env.features().has(Features::FROM)
        && door.is_limited != 0
        && !env.admits_source(info, door.number, is_spa)
}

/// Returns whether a door of the group gives no grants, because the engine of the group has not answered for too long.
#[inline(always)]
pub(crate) fn is_cut_off<E: Subprograms>(env: &E, door: &DoorEntry, now: Moment) -> bool {
    env.features().has(Features::FLEET)
        && door.is_shared != 0
        && env
            .config()
            .is_none_or(|config| now.millis() >= config.fleet_until_ms)
}

/// Returns whether an attempt began before its sequence expired.
#[inline(always)]
const fn has_begun_in_time(door: &DoorEntry, begun: Moment) -> bool {
    door.sequence_id == 0 || begun.millis() < door.good_until_ms
}

/// Records a one-time or time-based sequence as used; `false` if it was used before, or if the replay cache is full.
#[inline(always)]
fn spend<E: Subprograms>(env: &E, door: &DoorEntry, now: Moment) -> bool {
    let key = UsedKey {
        replay_domain: door.replay_domain,
        sequence_id: door.sequence_id,
    };
    door.sequence_id == 0 || env.used().insert(&key, now.millis())
}

#[inline(always)]
fn open<E: Subprograms>(
    env: &E,
    door: &DoorEntry,
    key: &mut GrantKey,
    new: Grant,
    now: Moment,
) -> Reason {
    let open_for_ms = new.until_ms.saturating_sub(now.millis());
    presence::expect_pass(env, key.source, now.after_millis(open_for_ms));
    let mut reason = Reason::Opened;
    for port_group in port_groups(door) {
        key.port_group = port_group;
        match give_grant(env, key, new, now) {
            GrantOutcome::New => {}
            GrantOutcome::Refreshed if reason == Reason::Opened => reason = Reason::Refreshed,
            GrantOutcome::Refreshed => {}
            GrantOutcome::NoRoom => reason = Reason::GrantsFull,
        }
    }
    reason
}

#[inline(always)]
fn close<E: Subprograms>(env: &E, door: &DoorEntry, key: &mut GrantKey, now: Moment) {
    // The end must have passed for other CPUs, too, whose clocks may be behind.
    let until_ms = now.millis().saturating_sub(SKEW_MS);
    for port_group in port_groups(door) {
        key.port_group = port_group;
        let Some(word) = env.allow().find(key) else {
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
fn port_groups(door: &DoorEntry) -> impl Iterator<Item = u16> + '_ {
    (0..door.port_group_count)
        .zip(&door.port_groups)
        .map(|(_, port_group)| *port_group)
}

enum GrantOutcome {
    New,
    Refreshed,
    NoRoom,
}

#[inline(always)]
fn give_grant<E: Subprograms>(env: &E, key: &GrantKey, new: Grant, now: Moment) -> GrantOutcome {
    for _ in 0..TRIES {
        let Some(word) = env.allow().find(key) else {
            if env.allow().insert(key, new.to_word()) {
                return GrantOutcome::New;
            }
            continue;
        };
        let old = Grant::from_word(word.load());
        let given = if old.is_valid(now) {
            GrantOutcome::Refreshed
        } else {
            GrantOutcome::New
        };
        // The later end is kept, also if it is another door's.
        if old.until_ms >= new.until_ms || word.replace(old.to_word(), new.to_word()) {
            return given;
        }
    }
    GrantOutcome::NoRoom
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        layout::{Config, PortRule},
        port_digits::PortDigits,
        sim::Sim,
    };

    #[test]
    fn an_opened_door_replies_once() {
        let door = DoorEntry {
            open_for_ms: 30_000,
            sequence_timeout_ticks: 10,
            port_group_count: 1,
            reply: PortDigits::of(22),
            ..DoorEntry::default()
        };
        let silent = DoorEntry {
            reply: PortDigits::default(),
            ..door
        };
        let closing = DoorEntry { closes: 1, ..door };
        let answers = Features::ANSWERS;
        let reply = Some(Answer::port(PortDigits::of(22)));
        for (name, features, door, capacity, elapsed, reason, answer) in [
            ("opened", answers, door, 1, 10, Reason::Opened, reply),
            ("too late", answers, door, 1, 11, Reason::TooLate, None),
            (
                "grants are full",
                answers,
                door,
                0,
                10,
                Reason::GrantsFull,
                None,
            ),
            (
                "no reply configured",
                answers,
                silent,
                1,
                10,
                Reason::Opened,
                None,
            ),
            (
                "closing door",
                answers,
                closing,
                1,
                10,
                Reason::Closed,
                None,
            ),
            (
                "replies not in use",
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

    #[test]
    fn a_door_of_a_group_opens_until_the_host_is_cut_off() {
        const UNTIL_MS: u64 = 5_000;
        let fleet = Features::FLEET;
        let none = Features::default();
        for (name, features, is_shared, closes, now_ms, expected) in [
            ("followed", fleet, 1, 0, UNTIL_MS - 1, Reason::Opened),
            ("cut off", fleet, 1, 0, UNTIL_MS, Reason::CutOff),
            ("a door of this host", fleet, 0, 0, UNTIL_MS, Reason::Opened),
            ("a closing door", fleet, 0, 1, UNTIL_MS, Reason::Closed),
            ("no group", none, 1, 0, UNTIL_MS, Reason::Opened),
        ] {
            let door = DoorEntry {
                open_for_ms: 30_000,
                port_group_count: 1,
                is_shared,
                closes,
                sequence_id: 1,
                good_until_ms: u64::MAX,
                ..DoorEntry::default()
            };
            let sim = Sim {
                features,
                doors: [door].into(),
                config: Config {
                    fleet_until_ms: UNTIL_MS,
                    ..Config::default()
                },
                ..Sim::default()
            };
            let info = PacketInfo {
                now_ns: now_ms * 1_000_000,
                ..from(40_000)
            };
            let completed = Completed {
                entry: 0,
                stage: 1,
                elapsed: 0,
            };
            assert_eq!(use_door(&sim, &info, completed), expected, "{name}");
            // A one-time sequence that opens nothing is not used.
            let again = use_door(&sim, &info, completed);
            let is_used = again == Reason::SequenceReused;
            assert_eq!(is_used, expected != Reason::CutOff, "{name}");
        }
    }

    fn from(source_port: u16) -> PacketInfo {
        PacketInfo {
            source_port,
            ..PacketInfo::default()
        }
    }

    #[test]
    fn replies_go_to_client_ports_only() {
        let door = DoorEntry {
            open_for_ms: 30_000,
            port_group_count: 1,
            reply: PortDigits::of(22),
            ..DoorEntry::default()
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
        for (name, source_port, is_answered) in [
            ("a client", 40_000, true),
            ("port 0", 0, false),
            ("echo", 7, false),
            ("chargen", 19, false),
            ("DNS", 53, false),
            ("the last service port", 1023, false),
            ("the first client port", 1024, true),
            ("a knock port", 8000, false),
            ("a decoy", 8001, false),
            ("a protected port", 8002, true),
            ("an exempt port", 8003, true),
            ("a TCP knock port", 8004, true),
        ] {
            let sim = sim();
            let opened = use_door(&sim, &from(source_port), completed);
            assert_eq!(opened, Reason::Opened, "{name}");
            assert_eq!(sim.answer.take().is_some(), is_answered, "{name}");
            let again = use_door(&sim, &from(source_port), completed);
            assert_eq!(again, Reason::Refreshed, "{name}");
            assert_eq!(sim.answer.take(), None, "{name}, again");
        }
    }
}
