//! Doors that can be used only from some prefixes.

use crate::{
    Address, Env,
    connection::Connection,
    layout::{Features, FromKey, port_index},
    packet::Protocol,
    packet_info::PacketInfo,
};

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

/// Returns whether a knock port or decoy that completes handshakes answers the source of a connection.
#[inline(always)]
pub(crate) fn is_answered<E: Env>(env: &E, connection: &Connection) -> bool {
    if !env.features().has(Features::FROM) {
        return true;
    }
    let Connection { source, port, .. } = *connection;
    // Read again: as an argument, the word would make the stack of the program longer.
    let rule = env.port(port_index(Protocol::Tcp, port));
    rule.audience().door().is_none_or(|door| {
        let door = door.into();
        env.is_from(&FromKey { door, source })
    })
}
