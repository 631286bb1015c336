//! The order in which a frame is judged.

use crate::{
    Bytes, Reason, World, access,
    event::What,
    knock,
    layout::{PortKind, port_index},
    packet,
    reason::Telling,
    visit::Visit,
    world::Judged,
};

/// Judges a frame: what it was, in one [`Reason`], which also says whether it passes.
///
/// Ordinary traffic pays for the parse and one look into the port table.
#[inline(always)]
pub fn judge<B: Bytes + ?Sized, W: World>(bytes: &B, world: &W) -> Reason {
    judge_segment(bytes, world).unwrap_or_else(|reason| {
        if reason.telling() != Telling::Never {
            let visit = Visit {
                now_ns: world.now().nanos(),
                ..Visit::default()
            };
            world.tell(&visit, What::new(reason), 0);
        }
        reason
    })
}

/// The reason, as an error if the frame could not be read as far as was needed.
#[inline(always)]
fn judge_segment<B: Bytes + ?Sized, W: World>(bytes: &B, world: &W) -> Judged<Reason> {
    let segment = packet::parse(bytes)?;
    let active = world.active();
    let port = port_index(active.bank(), segment.protocol, segment.destination_port);
    let rule = world.port(port);
    match rule.kind() {
        PortKind::Exempt => Ok(Reason::Ordinary),
        PortKind::Ordinary => knock::other_port(bytes, &segment, active, world),
        PortKind::Protected => access::protected(bytes, &segment, rule, active, world),
        PortKind::Knock | PortKind::Decoy => knock::knock(bytes, &segment, rule, active, world),
    }
}
