//! Reads source, destination and time of a packet.

use crate::{
    Address, Bytes, Env, Reason, layout::Features, packet::Segment, packet_info::PacketInfo,
    reason::Judged,
};

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
        if !is_of_host(bytes, source, env) {
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
}

/// Returns whether an address is plausible as the source or the only receiver of a packet: one that a host can have, or
/// a loopback address on the loopback interface.
#[inline(always)]
pub(crate) fn is_of_host<B: Bytes + ?Sized, E: Env>(bytes: &B, address: Address, env: &E) -> bool {
    address.is_host()
        || env.features().has(Features::LOOPBACK) && address.is_loopback() && bytes.is_looped()
}
