//! The addresses, ports and time of a packet that concerns knocking.

use bytemuck::{Pod, Zeroable};

use crate::{Address, layout::Symbol, packet::Protocol, time::Moment};

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
    /// Returns the time of arrival.
    #[inline(always)]
    pub fn now(&self) -> Moment {
        Moment::from_nanos(self.now_ns)
    }

    /// Returns the packet as a knock.
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
