//! The addresses, ports and time of a packet that concerns knocking.

use bytemuck::{Pod, Zeroable};

use crate::{
    Address, Bytes, Env, Reason,
    layout::{Features, Symbol},
    packet::{Protocol, Segment},
    reason::Judged,
    time::Moment,
};

/// Source, destination and time of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct PacketInfo {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Time of arrival, in nanoseconds since boot.
    pub now_ns: u64,
    /// Target of the destination address; 0 if it has none.
    pub target_id: u16,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub port: u16,
    /// Number of the [`Protocol`].
    pub protocol: u8,
    /// Explicit padding.
    pub padding: u8,
    /// Index of the interface that received the packet, in its network namespace.
    pub interface: u32,
    /// Explicit padding.
    pub padding2: u32,
}

impl PacketInfo {
    /// Reads the addresses of a segment.
    ///
    /// # Errors
    /// The reason why they can't be read; [`Reason::BadHeader`] for a source that no host can have,
    /// except for loopback addresses on the loopback interface.
    #[inline(always)]
    pub fn of<B: Bytes + ?Sized, E: Env>(bytes: &B, segment: &Segment, env: &E) -> Judged<Self> {
        let destination = segment.destination(bytes)?;
        let target_id = match env.features().has(Features::TARGETS) {
            true => env.target(destination),
            false => 0,
        };
        let source = segment.source(bytes)?;
        if !can_come(bytes, source, env) {
            return Err(Reason::BadHeader);
        }
        Ok(Self {
            source,
            destination,
            now_ns: env.now().nanos(),
            target_id,
            source_port: segment.source_port,
            port: segment.destination_port,
            protocol: segment.protocol as u8,
            padding: 0,
            interface: bytes.interface(),
            padding2: 0,
        })
    }

    /// Time of arrival.
    #[inline(always)]
    pub fn now(&self) -> Moment {
        Moment::from_nanos(self.now_ns)
    }

    /// The packet as a knock.
    #[inline(always)]
    pub fn symbol(&self) -> Symbol {
        let protocol = if self.protocol == 0 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        Symbol::new(protocol, self.port)
    }
}

/// Whether a source address is plausible: one that a host can have, or a loopback address on the loopback
/// interface.
#[inline(always)]
pub(crate) fn can_come<B: Bytes + ?Sized, E: Env>(bytes: &B, source: Address, env: &E) -> bool {
    source.is_host()
        || env.features().has(Features::LOOPBACK) && source.is_loopback() && bytes.is_looped()
}
