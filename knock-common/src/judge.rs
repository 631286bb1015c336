//! Judges a frame. The protocol:
//!
//! 1. A frame of a blocked source is dropped, unless the source is trusted.
//! 2. A frame that cannot be read as far as its ports passes if it is not IP, TCP or UDP; else it is dropped.
//! 3. A packet to an unused port passes; in strict mode a new connection to it ends its source's attempt.
//! 4. A packet to a protected port passes if its source has a grant or a flow, or is trusted.
//! 5. A knock advances, restarts or ends its source's attempt, and is dropped.
//! 6. The last knock of a sequence gives or ends the door's grants. A decoy ends the attempt.
//! 7. A packet of single packet authorization does the same as a whole sequence, and is dropped.

use crate::{
    FrameSubprograms, Reason, Subprograms, access, emit,
    event::EventHead,
    knock,
    layout::{Config, Features, PortKind, PortRule, port_index},
    packet,
    packet_info::PacketInfo,
    reason::{Judged, Reporting, Stat, Verdict},
    spa::{
        answer,
        dispatch::{self, PortOutcome},
    },
};

/// Why a frame passes or not, and what happens to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// Why.
    pub reason: Reason,
    /// Whether it reaches the network stack although its reason drops it: a knock on a port
    /// whose doors have `knock_pass`.
    pub is_let_pass: bool,
}

/// The action of the kernel side for a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameAction {
    /// Passes it to the network stack.
    Pass,
    /// Drops it.
    Drop,
    /// Sends the answer that was left for it, or drops it if there is none.
    Answer,
}

impl Judgement {
    /// Returns what the kernel side does with the frame: the verdict, unless the configuration is a dry run. With
    /// answers in use, a complete sequence may have left one too, and so may a SPA packet.
    #[inline(always)]
    pub const fn action(self, features: Features) -> FrameAction {
        let passes = matches!(self.verdict(), Verdict::Pass) || features.has(Features::DRY_RUN);
        let may_be_answered = features.has(Features::ANSWERS)
            || features.has(Features::SPA) && answer::is_for_clients(self.reason);
        match (passes, may_be_answered) {
            (true, _) => FrameAction::Pass,
            (false, true) => FrameAction::Answer,
            (false, false) => FrameAction::Drop,
        }
    }

    /// Returns the verdict on the frame.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        match self.is_let_pass {
            true => Verdict::Pass,
            false => self.reason.verdict(),
        }
    }
}

impl From<Reason> for Judgement {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            is_let_pass: false,
        }
    }
}

/// Judges a frame and returns the reason alone; see [`decide`].
#[inline(always)]
pub fn judge<B: FrameSubprograms + ?Sized, E: Subprograms>(bytes: &B, env: &E) -> Reason {
    decide(bytes, env).reason
}

/// Judges a frame: returns one [`Reason`], and what happens to the frame.
///
/// Ordinary traffic costs the parse and one lookup in the port table.
#[inline(always)]
pub fn decide<B: FrameSubprograms + ?Sized, E: Subprograms>(bytes: &B, env: &E) -> Judgement {
    if is_trial_expired(env) {
        return Reason::TrialExpired.into();
    }
    if (env.has_blocks() || env.features().has(Features::BLOCK)) && bytes.is_blocked(env) {
        bytes.report_blocked(env);
        return Reason::Blocked.into();
    }
    judge_segment(bytes, env).unwrap_or_else(|reason| {
        if reason.reporting() != Reporting::Never {
            let info = PacketInfo {
                now_ns: env.now().nanos(),
                ..PacketInfo::default()
            };
            emit::report(env, &info, EventHead::new(reason), 0);
        }
        reason.into()
    })
}

/// Returns whether the trial of the configuration has expired.
#[inline(always)]
fn is_trial_expired<E: Subprograms>(env: &E) -> bool {
    let is_over = |config: &Config| env.now().millis() >= config.confirm_by_ms;
    env.features().has(Features::CONFIRM) && env.config().is_some_and(is_over)
}

/// Judges a frame that can be read.
///
/// # Errors
/// The reason why the frame can't be read as far as needed.
#[inline(always)]
fn judge_segment<B: FrameSubprograms + ?Sized, E: Subprograms>(
    bytes: &B,
    env: &E,
) -> Judged<Judgement> {
    let segment = packet::parse(bytes).inspect_err(|&reason| {
        if reason == Reason::NotIp {
            bytes.note_other();
        }
    })?;
    let mut rule = env.port(port_index(segment.protocol, segment.destination_port));
    if env.features().has(Features::SPA) && rule.kind() == PortKind::Spa {
        match dispatch::port(bytes, &segment, rule, env)? {
            PortOutcome::Judged(reason) => return Ok(reason.into()),
            PortOutcome::Otherwise(otherwise) => rule = otherwise,
        }
    }
    let reason = match rule.kind() {
        PortKind::Exempt | PortKind::Spa => Reason::Ordinary,
        PortKind::Ordinary => knock::other_port(bytes, &segment, env)?,
        PortKind::Protected => access::protected(bytes, &segment, rule, env)?,
        PortKind::Knock | PortKind::Decoy => {
            let reason = knock::knock(bytes, &segment, rule, env)?;
            return Ok(if_let_pass(reason, rule, env));
        }
    };
    Ok(reason.into())
}

/// Lets a knock pass if its doors have `knock_pass`.
#[inline(always)]
fn if_let_pass<E: Subprograms>(reason: Reason, rule: PortRule, env: &E) -> Judgement {
    let is_let_pass = env.features().has(Features::KNOCK_PASS)
        && rule.passes_knocks()
        && reason.verdict() != Verdict::Pass;
    if is_let_pass {
        env.count(Stat::KnocksPassed);
    }
    Judgement {
        reason,
        is_let_pass,
    }
}

#[cfg(test)]
mod tests;
