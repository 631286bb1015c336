//! The gate: a keyed hash of the packet, which everybody who knows the host's public key can compute. It authenticates
//! nobody. It makes noise cheap to drop, and the port silent for everybody who does not know that key.

use crate::{
    Subprograms,
    siphash::{siphash, siphash_128},
    spa::layout::{GATES, Gate, Header, PacketWords, SpaKeyId, SpaKeyName, SpaScratch},
};

/// Reads the header of the packet in `scratch`. Returns `false` if the packet passes no gate.
#[inline(always)]
pub fn pass_any<E: Subprograms>(env: &E, scratch: &mut SpaScratch) -> bool {
    (0..GATES).any(|gate| env.pass(scratch, gate))
}

/// Reads the header of the packet in `scratch`. Returns `false` if the packet does not pass the gate with this index.
#[inline(always)]
pub fn pass<E: Subprograms>(env: &E, scratch: &mut SpaScratch, index: u32) -> bool {
    let SpaScratch { packet, header, .. } = scratch;
    match env.spa_gate(index) {
        Some(gate) if gate.is_used != 0 && admits(gate, packet) => {
            let [id, stamp] = unmask(gate, packet);
            *header = Header {
                key: SpaKeyName::new(SpaKeyId(id), index),
                stamp,
            };
            true
        }
        _ => false,
    }
}

#[inline(always)]
fn admits(gate: &Gate, packet: &PacketWords) -> bool {
    let [a, b, c, d, e, f, g, h, check] = packet.map(u64::from_le);
    siphash(gate.check, [a, b, c, d, e, f, g, h]) == check
}

#[inline(always)]
fn unmask(gate: &Gate, packet: &PacketWords) -> [u64; 2] {
    let [a, b, id, stamp, ..] = packet.map(u64::from_le);
    let [mask_id, mask_stamp] = siphash_128(gate.mask, [a, b]);
    [id ^ mask_id, stamp ^ mask_stamp]
}
