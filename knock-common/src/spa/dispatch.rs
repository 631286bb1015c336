//! Hands a packet to a SPA port to the formats of that port, one after the other.

use super::{
    judge::{self, is_last_format},
    layout::SpaScratch,
    port::{Otherwise, SpaFormats},
    step::SpaStep,
};
use crate::{
    FrameSubprograms, Reason, Subprograms, fwknop,
    layout::PortRule,
    packet::{Protocol, Segment},
    reason::Judged,
};

/// The outcome of a packet to a port for single packet authorization.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortOutcome {
    /// It was judged and reported.
    Judged(Reason),
    /// It is not a SPA packet: it is judged as a packet to a port with this rule.
    Otherwise(PortRule),
}

/// Judges a packet to a port for single packet authorization.
///
/// # Errors
/// [`Reason::BadHeader`] for a SPA packet from a source that no host can have.
#[inline(always)]
pub fn port<B: FrameSubprograms + ?Sized, E: Subprograms>(
    bytes: &B,
    segment: &Segment,
    rule: PortRule,
    env: &E,
) -> Judged<PortOutcome> {
    let port = rule.spa_port();
    if segment.protocol == Protocol::Udp && segment.unicast {
        let mut step = SpaStep::NotSpa;
        if port.formats.has(SpaFormats::KNOCK) {
            let judge = |scratch: &mut SpaScratch| judge::judge(bytes, segment, env, port, scratch);
            step = env.with_spa_scratch(judge).unwrap_or(step);
        }
        if step == SpaStep::NotSpa && !is_last_format(env, port) {
            let judge = |scratch: &mut fwknop::FwknopScratch| {
                fwknop::judge::judge(bytes, segment, env, port, scratch)
            };
            step = env.with_fwknop_scratch(judge).unwrap_or(step);
        }
        match step {
            SpaStep::Judged(Reason::BadHeader) => return Err(Reason::BadHeader),
            SpaStep::Judged(reason) | SpaStep::Authentic(reason) => {
                return Ok(PortOutcome::Judged(reason));
            }
            SpaStep::NotSpa | SpaStep::Noise | SpaStep::Continue => {}
        }
        if port.otherwise == Otherwise::Drop {
            return Ok(PortOutcome::Judged(Reason::SpaNoise));
        }
    }
    Ok(PortOutcome::Otherwise(match port.otherwise {
        // Packets to several hosts pass, as at knock ports.
        Otherwise::Drop | Otherwise::Pass => PortRule::EXEMPT,
        Otherwise::Protected(port_group) => {
            PortRule::protected(port_group).with_grant_prefix(rule.grant_prefix())
        }
    }))
}
