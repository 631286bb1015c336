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
}

/// Whether a source address is plausible: one that a host can have, or a loopback address on the loopback
/// interface.
#[inline(always)]
pub(crate) fn can_come<B: Bytes + ?Sized, E: Env>(bytes: &B, source: Address, env: &E) -> bool {
    source.is_host()
        || env.features().has(Features::LOOPBACK) && source.is_loopback() && bytes.is_looped()
}
