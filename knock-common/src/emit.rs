//! Reports events to user space, within the limit of their kind.

use crate::{
    Address, Stat, Subprograms,
    env::Word,
    event::{Event, EventHead},
    layout::Features,
    packet_info::PacketInfo,
    reason::Reporting,
    time::Moment,
};

/// Events of a kind within a window, of all CPUs together: 238 per second.
const LIMIT_EVENTS: u64 = 64;

/// The window of an event limit, as a power of two of nanoseconds: 268 ms.
const LIMIT_WINDOW_SHIFT: u32 = 28;

/// Few CPUs take from an event limit at the same moment, and suppressed events are counted.
const LIMIT_TRIES: usize = 4;

/// Does the same as [`report`] in a subprogram that most often has something to report: it needs no further one.
#[inline(always)]
pub(crate) fn report_here<E: Subprograms>(
    env: &E,
    info: &PacketInfo,
    head: EventHead,
    until_ms: u64,
) {
    if admits(env, head.reason().reporting(), info.now()) {
        hand_over(env, info, head, until_ms);
    }
}

/// Reports to user space, if the reason is reported and its event limit is not reached.
#[inline(always)]
pub fn report<E: Subprograms>(env: &E, info: &PacketInfo, head: EventHead, until_ms: u64) {
    if admits(env, head.reason().reporting(), info.now()) {
        env.hand_over(info, head, until_ms);
    }
}

/// Returns whether an event is reported now. One that its limit suppresses is counted.
#[inline(always)]
pub fn admits<E: Subprograms>(env: &E, reporting: Reporting, now: Moment) -> bool {
    let is_admitted = match reporting {
        Reporting::Never => return false,
        Reporting::Always => true,
        Reporting::Drops | Reporting::Knocks => env
            .event_limit(reporting)
            .is_some_and(|event_limit| take(&event_limit, now)),
    };
    // In a flood each packet gets here, and the event limit stops it.
    if !is_admitted {
        env.count(Stat::EventsSuppressed);
    }
    is_admitted
}

/// Writes an event to the ring buffer.
#[inline(always)]
pub fn hand_over<E: Subprograms>(env: &E, info: &PacketInfo, head: EventHead, until_ms: u64) {
    // Reads each field of the packet where it is written: the stack has no room for all of them.
    let event = || {
        let other = match env.features().has(Features::SPA) && head.user() != 0 {
            true => env.spa_other(),
            false => Address::ANY,
        };
        Event {
            at_ns: info.now_ns,
            until_ms,
            source: info.source,
            destination: info.destination,
            door: head.door(),
            source_port: info.source_port,
            port: info.port,
            protocol: info.protocol,
            reason: head.code(),
            stage: head.stage().into(),
            user: head.user(),
            interface: info.interface,
            other,
        }
    };
    if !env.emit(event) {
        env.count(Stat::EventsLost);
    }
}

/// Takes one of the window's events. Once the limit is reached the word is only read, so that CPUs don't contend
/// for it in a flood.
#[inline(always)]
fn take(event_limit: &impl Word, now: Moment) -> bool {
    let window = now.nanos() >> LIMIT_WINDOW_SHIFT;
    for _ in 0..LIMIT_TRIES {
        let held = event_limit.load();
        // A CPU whose clock is behind takes from the window that another one has begun.
        let (window, used) = if held >> 16 >= window {
            (held >> 16, held & 0xffff)
        } else {
            (window, 0)
        };
        if used >= LIMIT_EVENTS {
            return false;
        }
        if event_limit.replace(held, window << 16 | used.wrapping_add(1)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Reason, sim::Sim};

    fn info(ms: u64) -> PacketInfo {
        PacketInfo {
            now_ns: ms * 1_000_000,
            destination: Address::from_v4([192, 0, 2, 2]),
            source_port: 40_000,
            port: 22,
            protocol: 1,
            interface: 7,
            ..PacketInfo::default()
        }
    }

    /// Returns how many events are sent, and how many are counted as suppressed.
    fn report_all(sim: &Sim, reason: Reason, times: u32, ms: u64) -> (usize, u64) {
        sim.events.take();
        sim.stats.take();
        for _ in 0..times {
            report(sim, &info(ms), EventHead::new(reason), 0);
        }
        let stats = sim.stats.borrow();
        let suppressed = stats.get(&Stat::EventsSuppressed).copied().unwrap_or(0);
        (sim.events.borrow().len(), suppressed)
    }

    #[test]
    fn drops_and_knocks_have_event_limits_of_their_own() {
        let sim = Sim::default();
        for (name, reason, times, ms, sent) in [
            ("drops", Reason::NoGrant, 64, 1000, (64, 0)),
            ("another drop", Reason::Truncated, 1, 1000, (0, 1)),
            (
                "knocks have an event limit of their own",
                Reason::FirstKnock,
                60,
                1000,
                (60, 0),
            ),
            ("knocks", Reason::Decoy, 10, 1000, (4, 6)),
            (
                "a grant is always sent",
                Reason::Opened,
                100,
                1000,
                (100, 0),
            ),
            (
                "an unreported reason is not suppressed",
                Reason::Duplicate,
                100,
                1000,
                (0, 0),
            ),
            ("what passes", Reason::Granted, 100, 1000, (0, 0)),
            // Windows of 2²⁸ ns: 1000 ms is in the fourth, 1100 ms in the fifth.
            ("the next window", Reason::NoGrant, 100, 1100, (64, 36)),
            (
                "a CPU whose clock is behind",
                Reason::NoGrant,
                1,
                1000,
                (0, 1),
            ),
        ] {
            assert_eq!(report_all(&sim, reason, times, ms), sent, "{name}");
        }
    }

    #[test]
    fn an_event_names_what_happened_and_why() {
        let sim = Sim::default();
        let head = EventHead::at(Reason::WrongKnock, 7, 3).because(Reason::StrayPort);
        report(&sim, &info(5), head, 99);
        let event = Event {
            at_ns: 5_000_000,
            until_ms: 99,
            source: Address::ANY,
            destination: Address::from_v4([192, 0, 2, 2]),
            door: 7,
            source_port: 40_000,
            port: 22,
            protocol: 1,
            reason: Reason::StrayPort as u8,
            stage: 3,
            user: 0,
            interface: 7,
            other: Address::ANY,
        };
        assert_eq!(sim.events.take(), [event]);
        assert_eq!(event.reason(), Some(Reason::StrayPort));
    }

    proptest! {
        #[test]
        fn any_word_is_an_event_head(word: u64, now: u64) {
            let sim = Sim::default();
            let head = EventHead::from_word(word);
            prop_assert_eq!(EventHead::from_word(head.to_word()), head);
            report(&sim, &PacketInfo { now_ns: now, ..PacketInfo::default() }, head, 0);
        }

        /// Never more than the event limit admits, whatever its word was.
        #[test]
        fn any_word_of_an_event_limit_is_understood(word: u64, ms in 0_u64..1 << 40) {
            let sim = Sim::default();
            sim.event_limits[0].set(word);
            let (sent, suppressed) = report_all(&sim, Reason::NoGrant, 100, ms);
            prop_assert!(sent as u64 <= LIMIT_EVENTS);
            prop_assert_eq!(sent as u64 + suppressed, 100);
        }
    }
}
