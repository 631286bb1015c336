//! Describes packets, and times of grants.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use knock_common::{
    Address, Reason, event::Event, layout::port_index, packet::Protocol, time::NANOS_PER_MILLI,
};
use knock_sequence::{Knock, duration::spell};

use super::record::Record;

/// The known facts about a user's SPA packet.
#[derive(Default)]
pub(super) struct SpaPacket {
    pub(super) user: Option<String>,
    /// The address that it came from, if it opened a door for another one.
    pub(super) asked_from: Option<IpAddr>,
    /// The address that it asks for, if it is refused because of that.
    pub(super) asked_for: Option<IpAddr>,
    /// The port that a packet of fwknop asks for, if it is refused because of that.
    pub(super) refused: Option<Knock>,
    /// The same port as text.
    pub(super) refused_text: Option<String>,
}

impl SpaPacket {
    pub(super) fn of(event: &Event, users: &BTreeMap<u16, String>) -> Self {
        if event.user == 0 {
            return Self::default();
        }
        let number = || format!("number {}", event.user);
        let user = users.get(&event.user).cloned();
        let other = (event.other != Address::ANY).then(|| IpAddr::from(event.other));
        let is_refused = event.reason() == Some(Reason::SpaElsewhere);
        let refused = refused_port(event);
        Self {
            user: Some(user.unwrap_or_else(number)),
            asked_from: other.filter(|_| !is_refused),
            asked_for: other.filter(|_| is_refused),
            refused,
            refused_text: refused.map(|port| port_text(port.protocol as u8, port.port)),
        }
    }

    pub(super) fn record(&self) -> Record<'_> {
        Record {
            user: self.user.as_deref(),
            asked_from: self.asked_from,
            asked_for: self.asked_for,
            ..Record::default()
        }
    }

    /// Returns the port that it is refused for, as a list.
    pub(super) fn refused_ports(&self) -> Option<&[String]> {
        let ports = self.refused_text.as_slice();
        (!ports.is_empty()).then_some(ports)
    }

    /// Returns what follows the reason: `, user alice, asked from 192.0.2.1`.
    pub(super) fn text(&self) -> String {
        let parts = [
            self.user.as_ref().map(|user| format!(", user {user}")),
            self.asked_from.map(|from| format!(", asked from {from}")),
            self.asked_for.map(|wanted| format!(", asked for {wanted}")),
            self.refused_text
                .as_ref()
                .map(|port| format!(", asked for {port}")),
        ];
        parts.into_iter().flatten().collect()
    }
}

/// Returns the port that a packet of fwknop asks for, if it is refused because of that.
fn refused_port(event: &Event) -> Option<Knock> {
    let is_refused = event.reason() == Some(Reason::SpaNotAllowed);
    let index = Some(event.until_ms).filter(|&index| is_refused && index != 0);
    let index = u32::try_from(index?).ok()?;
    let port = index as u16;
    let mut protocols = [Protocol::Tcp, Protocol::Udp].into_iter();
    let protocol = protocols.find(|&protocol| port_index(protocol, port) == index)?;
    Some(Knock { protocol, port })
}

/// Returns by how many seconds the clock of a stale SPA packet's client is behind; negative if it
/// is ahead.
pub(super) fn behind_s(event: &Event) -> Option<i64> {
    let is_stale = event.reason() == Some(Reason::SpaStale);
    // A signed number of milliseconds ahead.
    is_stale.then(|| event.until_ms.cast_signed().wrapping_neg() / 1_000)
}

pub(super) fn skew(behind_s: i64) -> String {
    let by = spell(Duration::from_secs(behind_s.unsigned_abs()));
    match behind_s {
        ..0 => format!("clock is {by} ahead"),
        0.. => format!("clock is {by} behind"),
    }
}

/// Returns the address of this host to which a packet was sent, if it could be read.
pub(super) fn destination(event: &Event) -> Option<IpAddr> {
    let is_read = event.destination != Address::ANY;
    is_read.then(|| event.destination.into())
}

/// Returns whether the source of the packet could be read.
pub(super) fn is_known(event: &Event) -> bool {
    event.source != Address::default() || event.port != 0
}

pub(super) const fn protocol(number: u8) -> &'static str {
    if number == Protocol::Tcp as u8 {
        Protocol::Tcp.name()
    } else {
        Protocol::Udp.name()
    }
}

pub(super) fn port_text(number: u8, port: u16) -> String {
    format!("{}/{port}", protocol(number))
}

pub(super) fn join(first: &str, second: &str) -> String {
    let words = [first, second]
        .into_iter()
        .filter(|words| !words.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Returns the time from now to an end, in milliseconds.
pub(super) const fn length_of(until_ms: u64, at_ns: u64) -> u64 {
    until_ms.saturating_sub(at_ns / NANOS_PER_MILLI)
}

pub(super) fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}
