//! The order in which a frame is judged.

use crate::{
    Bytes, Reason, World, access, event, knock,
    layout::{PortKind, port_index},
    packet,
};

/// Judges a frame: what it was, in one [`Reason`], which also says whether it passes.
///
/// Ordinary traffic pays for the parse and one look into the port table.
#[inline(always)]
pub fn judge<B: Bytes + ?Sized, W: World>(bytes: &B, world: &W) -> Reason {
    let segment = match packet::parse(bytes) {
        Ok(segment) => segment,
        Err(reason) => {
            event::tell_unreadable(world, reason);
            return reason;
        }
    };
    let active = world.active();
    let port = port_index(active.bank(), segment.protocol, segment.destination_port);
    let rule = world.port(port);
    match rule.kind() {
        PortKind::Exempt => Ok(Reason::Ordinary),
        PortKind::Ordinary => knock::other_port(bytes, &segment, active, world),
        PortKind::Protected => access::protected(bytes, &segment, rule, active, world),
        PortKind::Knock | PortKind::Decoy => knock::knock(bytes, &segment, rule, active, world),
    }
    .unwrap_or_else(|reason| {
        event::tell_unreadable(world, reason);
        reason
    })
}
