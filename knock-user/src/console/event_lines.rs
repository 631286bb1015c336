//! Writes the line of each kind of event.

use std::{collections::BTreeMap, io::Write, net::IpAddr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use knock_common::{
    Address, Reason,
    event::{Event, NO_DOOR},
    layout::FlowKey,
    packet::Protocol,
};
use knock_sequence::duration::spell;

use super::{
    AttachMode, Console, DoorText, Named,
    line::Line,
    record::{EventKind, Record},
};
use crate::{
    ledger::{Action, Ending},
    model::{
        terminal::harmless,
        text::{count, list, verb},
    },
};

const NANOS_PER_MILLI: u64 = 1_000_000;

impl<W: Write> Console<W> {
    /// Writes an event of the kernel side.
    ///
    /// Events that open, refresh or close doors are written by [`Console::action`] instead.
    pub fn event(&mut self, event: &Event) {
        let door = self.door(event.door).cloned();
        let door = door.as_ref();
        let source = is_known(event).then(|| IpAddr::from(event.source));
        let port = source.map(|_| port_text(event.protocol, event.port));
        let (what, why) = match event.reason() {
            Some(reason) => describe(reason, event, door, &port.clone().unwrap_or_default()),
            None => (EventKind::Dropped, format!("reason {}", event.reason)),
        };
        let has_end = matches!(what, EventKind::Opened | EventKind::Refreshed);
        let has_stage = event.stage != 0;
        let interface = self.interface(event);
        let packet = SpaPacket::of(event, &self.users);
        let record = Record {
            source,
            door: door.map(|door| door.name.as_str()),
            protocol: source.map(|_| protocol(event.protocol)),
            port: source.map(|_| event.port),
            source_port: source.map(|_| event.source_port),
            destination: destination(event),
            interface: interface.as_deref(),
            stage: has_stage.then_some(event.stage.into()),
            stages: door.filter(|_| has_stage).and_then(|door| door.knocks),
            reason: event.reason().map(Reason::name),
            until: has_end.then(|| self.utc(event.until_ms.saturating_mul(NANOS_PER_MILLI))),
            seconds: has_end.then(|| seconds(length_of(event.until_ms, event.at_ns))),
            ports: door
                .filter(|_| has_end || what == EventKind::Closed)
                .map(|door| door.ports.as_slice()),
            seconds_behind: behind_s(event),
            ..packet.record()
        };
        let line = Line {
            what,
            source: source.map_or("-".to_owned(), |source| source.to_string()),
            door: door.map_or("-", |door| &door.name).to_owned(),
            why: join(&(why + &packet.text()), &self.arrival(event)),
        };
        // A refused client retries.
        let may_repeat = matches!(
            what,
            EventKind::Denied | EventKind::Dropped | EventKind::LockedOut
        );
        if may_repeat && !self.repeats.is_new(event.into(), &line, event.at_ns) {
            self.report_object(event.at_ns, what, record);
            return;
        }
        self.report(event.at_ns, &line, record);
    }

    /// Returns where the packet of an event arrived, as far as known: `(192.0.2.2 on eth0)`.
    fn arrival(&self, event: &Event) -> String {
        let to = destination(event).map(|to| to.to_string());
        let on = self.interface(event).map(|name| format!("on {name}"));
        match join(&to.unwrap_or_default(), &on.unwrap_or_default()) {
            nothing if nothing.is_empty() => nothing,
            arrival => format!("({arrival})"),
        }
    }

    fn interface(&self, event: &Event) -> Option<String> {
        self.interfaces.get(&event.interface).cloned()
    }

    /// Writes an action of the ledger, unless it only maintains maps. `event` is the event that
    /// caused it, if any.
    pub fn action(&mut self, action: &Action, event: Option<&Event>, at_ns: u64) {
        let (source, index, what, until_ms, ending, giver) = match *action {
            Action::Opened {
                source,
                door,
                until_ms,
                by,
            } => (source, door, EventKind::Opened, Some(until_ms), None, by),
            Action::Refreshed {
                source,
                door,
                until_ms,
                by,
            } => (source, door, EventKind::Refreshed, Some(until_ms), None, by),
            Action::Closed {
                source,
                door,
                ending,
            } => (source, door, EventKind::Closed, None, Some(ending), None),
            Action::Remove { .. } | Action::Restore { .. } => return,
        };
        let source = IpAddr::from(source);
        let Some(door) = self.door(index).cloned() else {
            return;
        };
        if !self.quota.admits(what.name(), source, &door.name, at_ns) {
            return;
        }
        let by = match ending {
            Some(Ending::Sequence { by }) => {
                let by = by.and_then(|by| self.door(by));
                by.map(|by| by.name.clone())
            }
            Some(Ending::Revoked { by }) => Some(user(by)),
            Some(Ending::Expired | Ending::Removed) => None,
            None => giver.map(user),
        };
        let lasts_ms = until_ms.map(|until_ms| length_of(until_ms, at_ns));
        let mut why = door.ports_text();
        if let Some(lasts_ms) = lasts_ms {
            why = join(
                &why,
                &format!("for {}", spell(Duration::from_millis(lasts_ms))),
            );
        }
        if let Some(ending) = ending {
            why = join(&why, &ending_text(ending, by.as_deref()));
        } else if let Some(by) = &by {
            why = join(&why, &format!("granted by {by}"));
        }
        // One event may end grants of another source.
        let event = event.filter(|event| IpAddr::from(event.source) == source);
        let packet = event.map(|event| SpaPacket::of(event, &self.users));
        let packet = packet.unwrap_or_default();
        why += &packet.text();
        if let Some(event) = event {
            why = join(&why, &self.arrival(event));
        }
        let interface = event.and_then(|event| self.interface(event));
        let record = Record {
            source: Some(source),
            destination: event.and_then(destination),
            interface: interface.as_deref(),
            door: Some(&door.name),
            reason: ending.map(Ending::name).or(giver.map(|_| "granted")),
            by: by.as_deref(),
            until: until_ms.map(|until_ms| self.utc(until_ms.saturating_mul(NANOS_PER_MILLI))),
            seconds: lasts_ms.map(seconds),
            ports: Some(&door.ports),
            ..packet.record()
        };
        let line = Line {
            what,
            source: source.to_string(),
            door: door.name.clone(),
            why,
        };
        self.report(at_ns, &line, record);
    }

    /// Reports connections that existed before the program and continue.
    pub fn kept(&mut self, flows: &[FlowKey], at_ns: u64) {
        for flow in flows {
            let why = format!("connection from port {} continues", flow.source_port);
            self.flow(EventKind::Kept, flow, why, Record::default(), at_ns);
        }
    }

    /// Reports that a connection without packets is no longer kept.
    pub fn flow_closed(&mut self, flow: &FlowKey, idle: Duration, at_ns: u64) {
        let record = Record {
            reason: Some("idle"),
            seconds: Some(idle.as_secs_f64()),
            ..Record::default()
        };
        let why = format!(
            "connection from port {} idle for {}",
            flow.source_port,
            spell(idle)
        );
        self.flow(EventKind::Closed, flow, why, record, at_ns);
    }

    fn flow(&mut self, what: EventKind, flow: &FlowKey, why: String, rest: Record<'_>, at_ns: u64) {
        let source = IpAddr::from(flow.source);
        let number = u8::try_from(flow.protocol).unwrap_or(u8::MAX);
        let port = port_text(number, flow.port);
        if !self.quota.admits(what.name(), source, &port, at_ns) {
            return;
        }
        let record = Record {
            source: Some(source),
            protocol: Some(protocol(number)),
            port: Some(flow.port),
            source_port: Some(flow.source_port),
            ..rest
        };
        let line = Line {
            what,
            source: source.to_string(),
            door: port,
            why,
        };
        self.report(at_ns, &line, record);
    }

    /// Reports how many events are missing since the last such line, if any: suppressed by the
    /// kernel's event limit, or lost because they were not read in time.
    pub fn suppressed(&mut self, suppressed: u64, lost: u64, at_ns: u64) {
        let mut parts = Vec::new();
        if suppressed > 0 {
            parts.push(format!("{}: too many at once", count(suppressed, "event")));
        }
        if lost > 0 {
            parts.push(format!("{}: not read in time", count(lost, "event")));
        }
        if parts.is_empty() {
            return;
        }
        let record = Record {
            events_suppressed: Some(suppressed),
            events_lost: Some(lost),
            ..Record::default()
        };
        let line = Line {
            what: EventKind::Suppressed,
            source: "-".to_owned(),
            door: "-".to_owned(),
            why: parts.join(", "),
        };
        self.report(at_ns, &line, record);
    }

    /// Reports that the program is attached: `protecting tcp/22 on eth0 (native), 1 door`.
    pub fn protecting<'n>(
        &mut self,
        ports: &[String],
        interface: impl Into<Named<'n>>,
        mode: AttachMode,
        at_ns: u64,
    ) {
        let interface = interface.into();
        let doors = self.doors.iter();
        let doors = doors.filter(|door| !door.name.is_empty()).count();
        let text = format!(
            "{} {} on {} ({}), {}",
            if self.style.dry_run {
                "would protect"
            } else {
                "protecting"
            },
            list(ports),
            harmless(&interface.shown()),
            mode.name(),
            count(doors as u64, "door"),
        );
        let record = Record {
            ports: Some(ports),
            interface: Some(interface.asked_for),
            current_name: interface.now,
            mode: Some(mode.name()),
            doors: Some(doors),
            ..Record::default()
        };
        self.say(at_ns, EventKind::Protecting, &text, record);
    }

    /// Reports that the driver did not accept the program: `fallback to skb on eth0 because …`.
    pub fn fallback<'n>(&mut self, interface: impl Into<Named<'n>>, because: &str, at_ns: u64) {
        let interface = interface.into();
        let mode = AttachMode::Generic.name();
        let text = format!(
            "fallback to {mode} on {} because {}",
            harmless(&interface.shown()),
            harmless(because)
        );
        let record = Record {
            interface: Some(interface.asked_for),
            current_name: interface.now,
            mode: Some(mode),
            because: Some(because),
            ..Record::default()
        };
        self.say(at_ns, EventKind::Fallback, &text, record);
    }

    /// Reports that the program is detached: `detached: tcp/22 is no longer protected on eth0`.
    pub fn detached(&mut self, ports: &[String], interface: &str, at_ns: u64) {
        let end = if self.style.dry_run {
            "not protected in the dry run"
        } else {
            "no longer protected"
        };
        let verb = verb(ports, "is", "are");
        let text = format!(
            "detached: {} {verb} {end} on {}",
            list(ports),
            harmless(interface)
        );
        self.say(
            at_ns,
            EventKind::Detached,
            &text,
            Record::of_ports(ports, interface),
        );
    }

    pub(super) fn wall(&self, at_ns: u64) -> Timestamp {
        let since_boot = SignedDuration::from_nanos(i64::try_from(at_ns).unwrap_or(i64::MAX));
        self.boot.saturating_add(since_boot).unwrap_or(self.boot)
    }

    pub(super) fn utc(&self, at_ns: u64) -> String {
        format!("{:.3}", self.wall(at_ns))
    }

    pub(super) fn door(&self, index: u16) -> Option<&DoorText> {
        self.doors
            .get(usize::from(index))
            // An unused number has an entry without a name.
            .filter(|door| index != NO_DOOR && !door.name.is_empty())
    }
}

impl DoorText {
    fn ports_text(&self) -> String {
        self.ports.join(", ")
    }
}

/// What is known of a user's SPA packet.
#[derive(Default)]
struct SpaPacket {
    user: Option<String>,
    /// The address that it came from, if it opened a door for another one.
    asked_from: Option<IpAddr>,
    /// The address that it asks for, if it is refused because of that.
    asked_for: Option<IpAddr>,
}

impl SpaPacket {
    fn of(event: &Event, users: &BTreeMap<u16, String>) -> Self {
        if event.user == 0 {
            return Self::default();
        }
        let number = || format!("number {}", event.user);
        let user = users.get(&event.user).cloned();
        let other = (event.other != Address::ANY).then(|| IpAddr::from(event.other));
        let is_refused = event.reason() == Some(Reason::SpaElsewhere);
        Self {
            user: Some(user.unwrap_or_else(number)),
            asked_from: other.filter(|_| !is_refused),
            asked_for: other.filter(|_| is_refused),
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            user: self.user.as_deref(),
            asked_from: self.asked_from,
            asked_for: self.asked_for,
            ..Record::default()
        }
    }

    /// Returns what follows the reason: `, user alice, asked from 192.0.2.1`.
    fn text(&self) -> String {
        let parts = [
            self.user.as_ref().map(|user| format!(", user {user}")),
            self.asked_from.map(|from| format!(", asked from {from}")),
            self.asked_for.map(|wanted| format!(", asked for {wanted}")),
        ];
        parts.into_iter().flatten().collect()
    }
}

/// Returns by how many seconds the clock of a stale SPA packet's client is behind; negative if it
/// is ahead.
fn behind_s(event: &Event) -> Option<i64> {
    let is_stale = event.reason() == Some(Reason::SpaStale);
    // A signed number of milliseconds ahead.
    is_stale.then(|| event.until_ms.cast_signed().wrapping_neg() / 1_000)
}

fn skew(behind_s: i64) -> String {
    let by = spell(Duration::from_secs(behind_s.unsigned_abs()));
    match behind_s {
        ..0 => format!("clock is {by} ahead"),
        0.. => format!("clock is {by} behind"),
    }
}

/// Returns the kind of an event and its reason in words.
fn describe(
    reason: Reason,
    event: &Event,
    door: Option<&DoorText>,
    port: &str,
) -> (EventKind, String) {
    let opens = door.map(DoorText::ports_text).unwrap_or_default();
    let stage = door.map(|door| match door.knocks {
        Some(knocks) => format!("{}/{knocks}", event.stage),
        None => event.stage.to_string(),
    });
    let at_stage = stage
        .clone()
        .map_or(port.to_owned(), |stage| format!("{stage} {port}"));
    let lasts = || {
        let lasts_ms = length_of(event.until_ms, event.at_ns);
        format!("for {}", spell(Duration::from_millis(lasts_ms)))
    };
    let after = |text: &str| match (&stage, event.stage) {
        (Some(stage), 1..) => format!("{port} {text} after {stage}"),
        _ => format!("{port} {text}"),
    };
    match reason {
        Reason::Opened => (EventKind::Opened, join(&opens, &lasts())),
        Reason::Refreshed => (EventKind::Refreshed, join(&opens, &lasts())),
        Reason::Closed => (EventKind::Closed, join(&opens, reason.text())),
        Reason::FirstKnock | Reason::NextKnock => (EventKind::Knock, at_stage),
        Reason::Duplicate => (EventKind::Knock, format!("{at_stage} again")),
        Reason::Restarted => (EventKind::Knock, format!("{at_stage} begins a new attempt")),
        Reason::OutOfSequence => (EventKind::Knock, format!("{port} begins no sequence")),
        Reason::WrongKnock | Reason::StrayPort => (EventKind::Reset, after(reason.text())),
        Reason::TooLate => (EventKind::Late, after("came too late")),
        Reason::SequenceReused => (EventKind::Reset, after(reason.text())),
        Reason::Decoy => (EventKind::Decoy, after(reason.text())),
        Reason::SynCookieSent | Reason::HandshakeClosed => {
            (EventKind::Knock, join(port, reason.text()))
        }
        Reason::BadCookie => (EventKind::Denied, after(reason.text())),
        Reason::LockedOut => (EventKind::LockedOut, after(reason.text())),
        Reason::NoGrant => (EventKind::Denied, after(reason.text())),
        Reason::SpaNoise
        | Reason::SpaStale
        | Reason::SpaUnknown
        | Reason::SpaReplayed
        | Reason::SpaForged
        | Reason::SpaExpired
        | Reason::SpaNotAllowed
        | Reason::SpaElsewhere
        | Reason::SpaCommand
        | Reason::SpaNat
        | Reason::SpaUnreadable => {
            let clock = behind_s(event).map(|behind_s| format!(", its {}", skew(behind_s)));
            let why = join(port, reason.text()) + &clock.unwrap_or_default();
            (EventKind::Denied, why)
        }
        Reason::SpaFull => (EventKind::Full, join(port, reason.text())),
        Reason::GrantsFull => (EventKind::Full, join(&opens, reason.text())),
        Reason::Contended => (EventKind::Dropped, after(reason.text())),
        Reason::Truncated
        | Reason::TinyFragment
        | Reason::ExtensionsTooLong
        | Reason::VlanTooDeep
        | Reason::BadHeader
        | Reason::HandshakeRest => (EventKind::Dropped, reason.text().to_owned()),
        Reason::NotIp
        | Reason::OtherProtocol
        | Reason::LaterFragment
        | Reason::Ordinary
        | Reason::Trusted
        | Reason::Flow
        | Reason::Granted
        | Reason::OtherFlags
        | Reason::TrialExpired => (EventKind::Passed, join(port, reason.text())),
    }
}

fn ending_text(ending: Ending, by: Option<&str>) -> String {
    match ending {
        Ending::Expired => "expired".to_owned(),
        Ending::Removed => "removed from the configuration".to_owned(),
        Ending::Sequence { .. } => by.map_or("by a closing sequence".to_owned(), |by| {
            format!("by the closing sequence {by}")
        }),
        Ending::Revoked { .. } => join("revoked by", by.unwrap_or_default()),
    }
}

/// Returns the address of this host to which a packet was sent, if it could be read.
fn destination(event: &Event) -> Option<IpAddr> {
    let is_read = event.destination != Address::ANY;
    is_read.then(|| event.destination.into())
}

/// Returns whether the source of the packet could be read.
fn is_known(event: &Event) -> bool {
    event.source != Address::default() || event.port != 0
}

const fn protocol(number: u8) -> &'static str {
    if number == Protocol::Tcp as u8 {
        Protocol::Tcp.name()
    } else {
        Protocol::Udp.name()
    }
}

fn port_text(number: u8, port: u16) -> String {
    format!("{}/{port}", protocol(number))
}

fn join(first: &str, second: &str) -> String {
    let words = [first, second]
        .into_iter()
        .filter(|words| !words.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Names a user who grants or revokes by hand.
fn user(uid: u32) -> String {
    format!("uid {uid}")
}

/// Returns the time from now to an end, in milliseconds.
const fn length_of(until_ms: u64, at_ns: u64) -> u64 {
    until_ms.saturating_sub(at_ns / NANOS_PER_MILLI)
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}
