//! Writes the line of an event of the kernel side.

use std::{io::Write, net::IpAddr, time::Duration};

use knock_common::{Reason, event::Event, time::NANOS_PER_MILLI};
use knock_sequence::{Knock, Ports, duration::spell};

use super::{
    Console, DoorText,
    line::ConsoleLine,
    packet_text::{
        SpaPacket, behind_s, destination, is_known, join, length_of, port_text, protocol, seconds,
        skew,
    },
    record::{EventKind, Record},
};
use crate::model::settings::Prefix;
use crate::model::text::count;

impl<W: Write> Console<W> {
    /// Writes an event of the kernel side.
    ///
    /// Events that open, refresh or close doors are written by [`Console::action`] instead.
    pub fn event(&mut self, event: &Event) {
        let packet = SpaPacket::of(event, &self.users);
        // A packet of fwknop names ports and no door.
        let door = self
            .door(event.door)
            .or_else(|| self.opener(packet.refused?))
            .cloned();
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
        let record = Record {
            source: source.map(Prefix::of),
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
                .map(|door| door.ports.as_slice())
                .or(packet.refused_ports()),
            seconds_behind: behind_s(event),
            ..packet.record()
        };
        let line = ConsoleLine {
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
    pub(super) fn arrival(&self, event: &Event) -> String {
        let to = destination(event).map(|to| to.to_string());
        let on = self.interface(event).map(|name| format!("on {name}"));
        match join(&to.unwrap_or_default(), &on.unwrap_or_default()) {
            nothing if nothing.is_empty() => nothing,
            arrival => format!("({arrival})"),
        }
    }

    /// Returns the name of the user whose SPA packet caused an event, if one did.
    pub fn user_of(&self, event: &Event) -> Option<String> {
        SpaPacket::of(event, &self.users).user
    }

    /// Returns the first door that opens a port.
    fn opener(&self, port: Knock) -> Option<&DoorText> {
        let opens = |ports: &String| {
            let ports = ports.parse::<Ports>();
            ports.is_ok_and(|ports| ports.overlaps(port.into()))
        };
        let mut doors = self.doors.iter().filter(|door| door.opens);
        doors.find(|door| door.ports.iter().any(opens))
    }

    pub(super) fn interface(&self, event: &Event) -> Option<String> {
        self.interfaces.get(&event.interface).cloned()
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
        let line = ConsoleLine {
            what: EventKind::Suppressed,
            source: "-".to_owned(),
            door: "-".to_owned(),
            why: parts.join(", "),
        };
        self.report(at_ns, &line, record);
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
        Reason::NoGrant | Reason::Blocked => (EventKind::Denied, after(reason.text())),
        Reason::SourceNotAllowed | Reason::CutOff => (EventKind::Denied, after(reason.text())),
        Reason::SpaNoise
        | Reason::SpaStale
        | Reason::SpaUnknown
        | Reason::SpaReplayed
        | Reason::SpaForged
        | Reason::SpaUnsigned
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
