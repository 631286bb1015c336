//! The knocks of every source, from which follows that a door must not have opened.

use knock_common::{
    Address, Reason,
    packet::{Protocol, flag},
};
use knock_sequence::Knock;
use knock_user::model::settings::{Door, Verify};

use crate::parser::reference::FrameFields;

/// A packet that can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct PastPacket {
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) source_port: u16,
    pub(super) to: Knock,
    flags: u8,
    unicast: bool,
}

impl PastPacket {
    /// Returns a packet of a host.
    ///
    /// # Errors
    /// No host has its source address.
    pub(super) fn of(
        read: &FrameFields,
        source: Address,
        destination: Address,
    ) -> Result<Self, Reason> {
        if !source.is_host() {
            return Err(Reason::BadHeader);
        }
        Ok(Self {
            source,
            destination,
            source_port: read.source_port,
            to: Knock {
                protocol: read.protocol,
                port: read.destination_port,
            },
            flags: read.flags,
            unicast: read.unicast,
        })
    }

    /// Returns whether it asks for a new TCP connection.
    pub(super) fn opens_tcp(&self) -> bool {
        let is_syn = self.flags & (flag::SYN | flag::ACK) == flag::SYN;
        self.to.protocol == Protocol::Tcp && is_syn
    }
}

/// Packets to knock ports, in their order, each with its tick.
#[derive(Debug, Default)]
pub(super) struct History(Vec<(u64, PastPacket)>);

impl History {
    pub(super) fn note(&mut self, tick: u64, packet: PastPacket) {
        self.0.push((tick, packet));
    }

    /// Returns whether the source of `last` has sent these knocks of a door in their order within its time, the
    /// last one just now. It does not matter here that others may have come between them.
    pub(super) fn has_knocked(
        &self,
        door: &Door,
        knocks: &[Knock],
        now: u64,
        last: &PastPacket,
    ) -> bool {
        // Rounded up, and a tick for either end.
        let ticks = door.sequence_timeout.as_nanos() / (1 << 22) + 2;
        let since = now.saturating_sub(u64::try_from(ticks).unwrap_or(u64::MAX));
        let is_for = |packet: &PastPacket| {
            let target = door.target.map(Address::from);
            target.is_none_or(|target| packet.destination == target)
        };
        let packets = self.0.iter().filter(|(tick, packet)| {
            packet.source == last.source
                && *tick >= since
                && packet.unicast
                && is_for(packet)
                && is_knock(packet, door)
        });
        let mut wanted = knocks.iter();
        let mut next = wanted.next();
        for (_, packet) in packets {
            if next == Some(&packet.to) {
                next = wanted.next();
            }
        }
        next.is_none() && knocks.last() == Some(&last.to) && is_for(last)
    }
}

/// Returns whether a packet has what makes one a knock of a door.
fn is_knock(packet: &PastPacket, door: &Door) -> bool {
    match (packet.to.protocol, door.verify) {
        (Protocol::Udp, _) => true,
        (Protocol::Tcp, Verify::Packet) => {
            packet.flags & door.tcp_flags.mask == door.tcp_flags.value
        }
        (Protocol::Tcp, Verify::Handshake) => packet.flags & (flag::SYN | flag::ACK) == flag::ACK,
    }
}
