//! Packets of single packet authorization, as they are sent.

use super::settings::CheckedSpa;
use super::words::PacketPort;
use crate::destination::{Destination, connected_socket};
use crate::refused;
use crate::remedy::remedy;
use knock_sequence::duration::spell;
use knock_sequence::spa::{DoorId, PACKET_LENGTH, Request, with_noise};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A packet that was sent.
#[derive(Debug)]
pub struct SentPacket {
    /// The host.
    pub destination: Destination,
    /// The moment just before it was handed to the system.
    pub at: Instant,
    /// The address that it asks to open for; `None` for the packet's source.
    pub source: Option<IpAddr>,
    /// Its stamp: ns since 1970, by this machine's clock.
    pub stamp: u64,
    /// Its octets.
    pub(super) packet: [u8; PACKET_LENGTH],
    /// Where the answer arrives.
    pub(super) socket: UdpSocket,
}

/// A packet that could not be sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot send the packet to {port} on {destination}: {}; {}",
    refused::plain(cause),
    remedy(cause)
)]
pub struct NotSent {
    /// The host.
    pub destination: Destination,
    /// The port.
    pub port: PacketPort,
    /// The system's error.
    pub cause: io::Error,
}

/// The stamps of a run: each is greater than the one before, even if the clock is set back.
#[derive(Debug, Default)]
pub(crate) struct StampClock {
    last: u64,
}

impl StampClock {
    fn next(&mut self) -> u64 {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        self.last = now.max(self.last.saturating_add(1));
        self.last
    }
}

impl CheckedSpa {
    /// Sends a packet to one of the host's addresses.
    ///
    /// # Errors
    ///
    /// This machine can't send it. Silence or a refusal of the host is not an error.
    pub(super) fn send(
        &self,
        destination: &Destination,
        has_several: bool,
        stamps: &mut StampClock,
    ) -> Result<SentPacket, NotSent> {
        let not_sent = |cause| NotSent {
            destination: *destination,
            port: self.port,
            cause,
        };
        let socket = connected_socket(destination.at(self.port.number())).map_err(not_sent)?;
        // The source address of this packet as it leaves this machine.
        let own = socket.local_addr().map_err(not_sent)?.ip();
        let source = self.source(own, destination, has_several);
        let stamp = stamps.next();
        let packet = self.channel.seal(&Request {
            stamp,
            source,
            door: self.door.as_ref().map_or(DoorId::FIRST, |door| door.id()),
            seconds: self.seconds,
            action: self.action,
            answer: self.answer,
        });
        let datagram = with_noise(&packet);
        let at = Instant::now();
        socket.send(&datagram).map_err(not_sent)?;
        Ok(SentPacket {
            destination: *destination,
            at,
            source,
            stamp,
            packet,
            socket,
        })
    }

    /// Returns what a packet asks for, in words.
    pub(crate) fn packet_text(&self, sent: &SentPacket) -> String {
        self.text_for(&sent.destination, sent.source)
    }

    /// Returns what a packet to a destination asks for, in words.
    pub(crate) fn text_for(&self, destination: &Destination, source: Option<IpAddr>) -> String {
        let time = self.seconds().map_or(String::new(), |seconds| {
            format!(" for {}", spell(Duration::from_secs(seconds.into())))
        });
        let source = match source {
            Some(source) => source.to_string(),
            None => "whichever address it comes from".to_owned(),
        };
        format!(
            "packet to {} on {}: {} {}{time}, for {source}",
            self.port,
            destination,
            self.action_text(),
            self.door_text(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_only_increase() {
        let mut stamps = StampClock::default();
        let first = stamps.next();
        assert!(first > 1_700_000_000_000_000_000, "ns since 1970: {first}");
        stamps.last = u64::MAX - 2;
        assert_eq!([stamps.next(), stamps.next()], [u64::MAX - 1, u64::MAX]);
    }
}
