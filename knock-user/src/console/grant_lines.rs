//! Writes lines about grants and connections: their beginnings and ends.

use std::{io::Write, net::IpAddr, time::Duration};

use knock_common::{Address, event::Event, layout::FlowKey, time::NANOS_PER_MILLI};
use knock_sequence::duration::spell;

use super::{
    Console,
    line::ConsoleLine,
    packet_text::{SpaPacket, destination, join, length_of, port_text, protocol, seconds},
    record::{EventKind, Record},
};
use crate::{
    ledger::{By, Ending, LedgerAction},
    model::settings::Prefix,
};

impl<W: Write> Console<W> {
    /// Writes an action of the ledger, unless it only maintains maps. `event` is the event that
    /// caused it, if any.
    pub fn action(&mut self, action: &LedgerAction, event: Option<&Event>, at_ns: u64) {
        let (source, index, what, until_ms, ending, giver) = match *action {
            LedgerAction::Opened {
                source,
                door,
                until_ms,
                by,
            } => (source, door, EventKind::Opened, Some(until_ms), None, by),
            LedgerAction::Refreshed {
                source,
                door,
                until_ms,
                by,
            } => (source, door, EventKind::Refreshed, Some(until_ms), None, by),
            LedgerAction::Closed {
                source,
                door,
                ending,
            } => (source, door, EventKind::Closed, None, Some(ending), None),
            LedgerAction::Remove { .. } | LedgerAction::Restore { .. } => return,
        };
        let Some(door) = self.door(index).cloned() else {
            return;
        };
        let covered = Prefix::covered(source, door.prefix);
        let source = covered.address;
        if !self.quota.admits(what.name(), source, &door.name, at_ns) {
            return;
        }
        let by = match ending {
            Some(Ending::Sequence { by }) => {
                let by = by.and_then(|by| self.door(by));
                by.map(|by| by.name.clone())
            }
            Some(Ending::Revoked { by }) => Some(self.giver(by)),
            Some(Ending::Expired | Ending::Removed | Ending::Narrowed | Ending::Packet) => None,
            None => giver.map(|by| self.giver(by)),
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
        let event = event.filter(|event| Prefix::covered(event.source, door.prefix) == covered);
        let packet = event.map(|event| SpaPacket {
            asked_from: asked_from(event, covered),
            ..SpaPacket::of(event, &self.users)
        });
        let packet = packet.unwrap_or_default();
        why += &packet.text();
        if let Some(event) = event {
            why = join(&why, &self.arrival(event));
        }
        let interface = event.and_then(|event| self.interface(event));
        let record = Record {
            source: Some(covered),
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
        let line = ConsoleLine {
            what,
            source: covered.to_string(),
            door: door.name.clone(),
            why,
        };
        self.report(at_ns, &line, record);
    }

    /// Names who gave or ended a grant: `uid 0`, `host web-17`.
    fn giver(&self, by: By) -> String {
        match by {
            By::Hand(uid) => format!("uid {uid}"),
            By::Host(host) => {
                let name = self.hosts.get(&host).map_or("?", String::as_str);
                format!("host {name}")
            }
        }
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
            source: Some(Prefix::of(source)),
            protocol: Some(protocol(number)),
            port: Some(flow.port),
            source_port: Some(flow.source_port),
            ..rest
        };
        let line = ConsoleLine {
            what,
            source: source.to_string(),
            door: port,
            why,
        };
        self.report(at_ns, &line, record);
    }
}

/// Returns the address that a packet came from, if a grant for something else than that address resulted.
fn asked_from(event: &Event, covered: Prefix) -> Option<IpAddr> {
    let is_for_other = event.user != 0 && event.other != Address::ANY;
    let from = match is_for_other {
        true => event.other,
        false => event.source,
    };
    let from = IpAddr::from(from);
    (covered != Prefix::of(from)).then_some(from)
}

fn ending_text(ending: Ending, by: Option<&str>) -> String {
    match ending {
        Ending::Expired => "expired".to_owned(),
        Ending::Removed => "removed from the configuration".to_owned(),
        Ending::Narrowed => "narrowed by the configuration".to_owned(),
        Ending::Sequence { by: None } => {
            "before its end, by a closing sequence or a SPA packet".to_owned()
        }
        Ending::Sequence { by: Some(_) } => by.map_or("by a closing sequence".to_owned(), |by| {
            format!("by the closing sequence {by}")
        }),
        Ending::Packet => "by a SPA packet".to_owned(),
        Ending::Revoked { .. } => join("revoked by", by.unwrap_or_default()),
    }
}
