//! Doors that can be used only from some prefixes.

use crate::{Address, Env, layout::FromKey, packet_info::PacketInfo};

/// Returns whether a door that is limited to some prefixes can be used by a packet: from its source, and if it is a SPA
/// packet that asks for another address, from that one too.
#[inline(always)]
pub fn admits<E: Env>(env: &E, info: &PacketInfo, door: u16, is_spa: bool) -> bool {
    let mut key = FromKey {
        door: door.into(),
        source: info.source,
    };
    if !env.is_from(&key) {
        return false;
    }
    if !is_spa {
        return true;
    }
    key.source = env.spa_other();
    key.source == Address::ANY || env.is_from(&key)
}
