//! A packet that has to do with knocking, once its addresses have been read.

use bytemuck::{Pod, Zeroable};

use crate::{
    Address, Bytes, Env, Reason,
    env::Judged,
    layout::{Features, Symbol},
    packet::{Protocol, Segment},
    time::Moment,
};

/// Who came when, to which port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct PacketInfo {
    /// Who.
    pub source: Address,
    /// To which address of this host.
    pub destination: Address,
    /// When, in nanoseconds since boot.
    pub now_ns: u64,
    /// Class of the destination address.
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
    pub fn of<B: Bytes + ?Sized, W: Env>(bytes: &B, segment: &Segment, env: &W) -> Judged<Self> {
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

    /// When.
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

/// Whether a packet can come from a source: a host, or this one over the loopback interface.
#[inline(always)]
pub(crate) fn can_come<B: Bytes + ?Sized, W: Env>(bytes: &B, source: Address, env: &W) -> bool {
    source.is_host()
        || env.features().has(Features::LOOPBACK) && source.is_loopback() && bytes.is_looped()
}
