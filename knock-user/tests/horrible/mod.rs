//! The reference model.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use knock_common::{Reason, packet::Protocol};
use knock_sequence::{Knock, Ports};
use knock_user::model::settings::{Decoys, Door, Effect, Exempt, Lockout, Scope, Settings};

use crate::{TICK_NS, frame::Frame};

/// Right knocks so far, and when the first and the last came, in ticks.
#[derive(Clone, Debug, Default)]
struct Attempt {
    history: Vec<Knock>,
    start: u64,
    last: u64,
}

/// What is let through: a port, or for a door that opens none, the door.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Granted {
    Port(u16),
    Door(String),
}

type Target = Option<IpAddr>;

pub(crate) struct Horrible<'s> {
    settings: &'s Settings,
    targets: BTreeSet<IpAddr>,
    /// By source and destination, which is none unless doors are for it.
    attempts: HashMap<(IpAddr, Target), Attempt>,
    /// Sources whose attempt ended so long ago that the kernel side need not have looked.
    overdue: HashSet<(IpAddr, Target)>,
    /// Until when, in milliseconds.
    grants: HashMap<(IpAddr, Granted, Target), u64>,
    /// Failed attempts and when the last one failed, in milliseconds.
    failures: HashMap<Option<IpAddr>, (u16, u64)>,
}

fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos())
        .unwrap()
        .div_ceil(TICK_NS)
}

fn in_any(ranges: &[Ports], knock: Knock) -> bool {
    ranges.iter().any(|ports| ports.overlaps(knock.into()))
}

impl<'s> Horrible<'s> {
    pub(crate) fn new(settings: &'s Settings) -> Self {
        Self {
            settings,
            targets: settings
                .doors
                .iter()
                .filter_map(|door| door.target)
                .collect(),
            attempts: HashMap::new(),
            overdue: HashSet::new(),
            grants: HashMap::new(),
            failures: HashMap::new(),
        }
    }

    /// Returns what a grant for a source covers: all doors have the same prefixes.
    fn network(&self, source: IpAddr) -> IpAddr {
        let is_wide = self
            .settings
            .doors
            .iter()
            .any(|door| !door.grant_prefix.is_single());
        match source {
            _ if !is_wide => source,
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                [a, b, c, 0].into()
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                [a, b, c, d, 0, 0, 0, 0].into()
            }
        }
    }

    /// Returns whether a new connection gets through.
    pub(crate) fn may_connect(&self, from: IpAddr, to: IpAddr, port: u16, now_ms: u64) -> bool {
        let from = self.network(from);
        [None, Some(to)].into_iter().any(|target| {
            let until = self.grants.get(&(from, Granted::Port(port), target));
            until.is_some_and(|&until| now_ms < until)
        })
    }

    /// Returns the reasons that are right for a packet. There are two only where the kernel side may have
    /// forgotten an attempt that is over anyway.
    pub(crate) fn judge(&mut self, frame: &Frame, now: u64) -> Vec<Reason> {
        let Frame { source, to, .. } = *frame;
        let tcp = to.protocol == Protocol::Tcp;
        let target = Some(frame.destination).filter(|to| self.targets.contains(to));
        let settings = self.settings;
        let listed = |decoys: &Decoys| match decoys {
            Decoys::Listed(ports) => in_any(ports, to),
            Decoys::Drawn { .. } => false,
        };
        if in_any(&settings.protect, to) {
            let now_ms = now * TICK_NS / 1_000_000;
            return match self.may_connect(source, frame.destination, to.port, now_ms) {
                true => vec![Reason::Granted],
                false => vec![Reason::NoGrant],
            };
        }
        let user = settings.doors.iter().find(|door| door.knock.contains(&to));
        if let Some(door) = user {
            if tcp && !door.tcp_flags.admits(frame.flags) {
                return vec![Reason::OtherFlags];
            }
            if frame.group {
                return vec![Reason::Ordinary];
            }
            return self.knock(source, target, to, now);
        }
        if matches!(&settings.exempt, Exempt::Listed(ports) if in_any(ports, to)) || frame.group {
            return vec![Reason::Ordinary];
        }
        let opens = !tcp || frame.flags & 0x12 == 0x02;
        if listed(&settings.decoys) {
            self.reset(source, target, now);
            return vec![Reason::Decoy];
        }
        if settings.strict && opens && self.reset(source, target, now) {
            return vec![Reason::StrayPort];
        }
        vec![Reason::Ordinary]
    }

    fn doors(&self, target: Target) -> impl Iterator<Item = &'s Door> + use<'s> {
        let doors = self.settings.doors.iter();
        doors.filter(move |door| door.target.is_none() || door.target == target)
    }

    fn is_beginning(&self, target: Target, history: &[Knock]) -> bool {
        self.doors(target)
            .any(|door| door.knock.starts_with(history))
    }

    /// Doors whose sequence the history ends in, longest first.
    fn ended(&self, target: Target, history: &[Knock]) -> Vec<&'s Door> {
        let mut doors: Vec<&Door> = self
            .doors(target)
            .filter(|door| history.ends_with(&door.knock))
            .collect();
        doors.sort_by_key(|door| usize::MAX - door.knock.len());
        doors
    }

    fn is_alive(&self, target: Target, attempt: &Attempt, now: u64) -> bool {
        let history = &attempt.history;
        let suffixes: Vec<&[Knock]> = (0..history.len()).map(|from| &history[from..]).collect();
        let reachable = |door: &&Door| suffixes.iter().any(|s| door.knock.starts_with(s));
        let sequence_timeout = self
            .doors(target)
            .filter(reachable)
            .map(|door| ticks(door.sequence_timeout))
            .max();
        let through = self
            .doors(target)
            .find(|door| door.knock.starts_with(history));
        let step = through
            .and_then(|door| door.step_timeout)
            .map_or(u64::MAX, ticks);
        now - attempt.last <= step
            && sequence_timeout
                .is_some_and(|sequence_timeout| now - attempt.start <= sequence_timeout)
    }

    fn knock(&mut self, source: IpAddr, target: Target, knock: Knock, now: u64) -> Vec<Reason> {
        let now_ms = now * TICK_NS / 1_000_000;
        if self.is_locked_out(source, now_ms) {
            return vec![Reason::LockedOut];
        }
        let mut attempt = self
            .attempts
            .get(&(source, target))
            .cloned()
            .unwrap_or_default();
        let begun = [Reason::FirstKnock];
        let either = [Reason::OutOfSequence, Reason::TooLate];
        if attempt.history.is_empty() {
            let overdue = self.overdue.contains(&(source, target));
            let not_begun = if overdue { &either[..] } else { &either[..1] };
            return self.afresh(source, target, knock, now, &begun, not_begun);
        }
        if !self.is_alive(target, &attempt, now) {
            let overdue = self.note_overdue(source, target, &attempt, now);
            let late = if overdue { &either[..] } else { &either[1..] };
            return self.afresh(source, target, knock, now, &begun, late);
        }
        let ended = !self.ended(target, &attempt.history).is_empty();
        let single = ended && attempt.history.len() == 1;
        let again = attempt.history.last() == Some(&knock);
        attempt.history.push(knock);
        let mut reason = Reason::NextKnock;
        if !self.is_beginning(target, &attempt.history) {
            if again && !single {
                return vec![Reason::Duplicate];
            }
            reason = Reason::Restarted;
            while !self.is_beginning(target, &attempt.history) {
                attempt.history.remove(0);
            }
            if attempt.history.len() <= 1 {
                if ended {
                    return self.afresh(source, target, knock, now, &begun, &either[..1]);
                }
                let (begun, wrong) = ([Reason::Restarted], [Reason::WrongKnock]);
                let reasons = self.afresh(source, target, knock, now, &begun, &wrong);
                if reasons == [Reason::WrongKnock] {
                    self.fail(source, now_ms);
                }
                return reasons;
            }
        }
        attempt.last = now;
        self.go_on(source, target, attempt, now, reason)
    }

    /// Returns whether an attempt ended so long ago that nothing needs to look for it any more.
    fn note_overdue(
        &mut self,
        source: IpAddr,
        target: Target,
        attempt: &Attempt,
        now: u64,
    ) -> bool {
        let longest = self
            .settings
            .doors
            .iter()
            .map(|door| ticks(door.sequence_timeout))
            .max();
        let overdue = longest.is_some_and(|longest| now - attempt.last > longest);
        if overdue {
            self.overdue.insert((source, target));
        }
        overdue
    }

    /// Takes a knock as a first one.
    fn afresh(
        &mut self,
        source: IpAddr,
        target: Target,
        knock: Knock,
        now: u64,
        begun: &[Reason],
        not_begun: &[Reason],
    ) -> Vec<Reason> {
        self.attempts.remove(&(source, target));
        if !self.is_beginning(target, &[knock]) {
            return not_begun.to_vec();
        }
        let attempt = Attempt {
            history: vec![knock],
            start: now,
            last: now,
        };
        self.go_on(source, target, attempt, now, begun[0])
    }

    /// Remembers an attempt and opens what it has completed.
    fn go_on(
        &mut self,
        source: IpAddr,
        target: Target,
        attempt: Attempt,
        now: u64,
        reason: Reason,
    ) -> Vec<Reason> {
        let ended = self.ended(target, &attempt.history);
        let elapsed = now - attempt.start;
        self.attempts.insert((source, target), attempt);
        if ended.is_empty() {
            return vec![reason];
        }
        let mut reason = Reason::TooLate;
        for door in ended {
            if elapsed <= ticks(door.sequence_timeout) {
                reason = self.use_door(source, door, now * TICK_NS / 1_000_000);
            }
        }
        vec![reason]
    }

    fn use_door(&mut self, source: IpAddr, door: &Door, now_ms: u64) -> Reason {
        let source = self.network(source);
        let key = |granted| (source, granted, door.target);
        match &door.effect {
            Effect::Close(ports) => {
                for ports in ports {
                    if let Some(until) = self.grants.get_mut(&key(Granted::Port(ports.first))) {
                        *until = now_ms.min(*until);
                    }
                }
                Reason::Closed
            }
            Effect::Open(ports) => {
                let mut granted: Vec<Granted> = ports
                    .iter()
                    .map(|ports| Granted::Port(ports.first))
                    .collect();
                if granted.is_empty() {
                    granted.push(Granted::Door(door.name.clone()));
                }
                let until_ms = now_ms + u64::try_from(door.open_for.as_millis()).unwrap();
                let had = granted.iter().any(|granted| {
                    let until = self.grants.get(&key(granted.clone()));
                    until.is_some_and(|&until| now_ms < until)
                });
                for granted in granted {
                    let until = self.grants.entry(key(granted)).or_default();
                    *until = until_ms.max(*until);
                }
                if had {
                    Reason::Refreshed
                } else {
                    Reason::Opened
                }
            }
        }
    }

    /// Forgets an attempt; returns whether there was one, which has thereby failed.
    fn reset(&mut self, source: IpAddr, target: Target, now: u64) -> bool {
        let Some(attempt) = self.attempts.remove(&(source, target)) else {
            return false;
        };
        self.note_overdue(source, target, &attempt, now);
        let failed =
            self.ended(target, &attempt.history).is_empty() && self.is_alive(target, &attempt, now);
        if failed {
            self.fail(source, now * TICK_NS / 1_000_000);
        }
        failed
    }

    fn subject(lockout: &Lockout, source: IpAddr) -> Option<IpAddr> {
        match lockout.scope {
            Scope::Source => Some(source),
            Scope::Global => None,
        }
    }

    /// Failures that are not forgotten.
    fn failed(&self, lockout: &Lockout, source: IpAddr, now_ms: u64) -> u16 {
        let remembered = u64::try_from(lockout.duration.as_millis()).unwrap();
        match self.failures.get(&Self::subject(lockout, source)) {
            Some(&(count, last_ms)) if now_ms < last_ms + remembered => count,
            _ => 0,
        }
    }

    fn is_locked_out(&self, source: IpAddr, now_ms: u64) -> bool {
        let lockout = self.settings.lockout.as_ref();
        lockout.is_some_and(|l| self.failed(l, source, now_ms) >= l.failures)
    }

    fn fail(&mut self, source: IpAddr, now_ms: u64) {
        if let Some(lockout) = &self.settings.lockout {
            let count = self.failed(lockout, source, now_ms) + 1;
            self.failures
                .insert(Self::subject(lockout, source), (count, now_ms));
        }
    }
}
