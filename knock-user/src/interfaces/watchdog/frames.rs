//! Compares the frames that the kernel counts on an interface with those that reach the program.

use knock_common::seen::FramesSeen;

/// The number of unseen frames after which the driver gets another copy of the program. It is
/// small, since a copy costs little, and ports are open until then.
const REARM_FROM: u64 = 8;
/// The number of unseen frames after which native mode is given up, or the interface is reported.
const GIVE_UP_FROM: u64 = 32;
/// Native mode is given up if frames pass by the program within this time after another copy, in
/// milliseconds.
const AGAIN_MS: u64 = 60_000;
/// The number of looks with unseen frames before anything is done: counted frames may still be on
/// their way to the program.
const LOOKS: u32 = 2;
/// The number of frames after which the share of types that may carry IP to another interface is
/// computed.
const FOREIGN_AMONG: u64 = 100;
/// The share of such frames that is reported, in percent: the others serve the link, or were lost
/// when several CPUs counted.
const FOREIGN_MOST: u64 = 95;

/// The counters of an interface at one time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameCounts {
    /// The frames that the program saw since the last look.
    pub seen: FramesSeen,
    /// The frames that the kernel has counted as received.
    pub received: u64,
    /// The time, in milliseconds since boot.
    pub now_ms: u64,
    /// Whether the driver runs the program.
    pub native: bool,
    /// Whether each counted frame enters the network stack. That is so where software counts; a
    /// card may count frames that it then filters, such as those of other VLANs.
    pub counts_what_enters: bool,
}

/// A conclusion from a look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finding {
    /// The program did not see this many frames: the driver needs another copy of it.
    Rearm(u64),
    /// The program did not see this many frames, although the driver got another copy: it must be
    /// attached behind the driver.
    Generic(u64),
    /// The program did not see this many frames, and no remedy is left: nothing is protected.
    Blind(u64),
    /// This many frames do not arrive behind the driver either: the card counts and filters them.
    Filtered(u64),
    /// Almost none of this many frames was IP, and they may carry IP to another interface.
    Foreign {
        /// The number of frames.
        frames: u64,
        /// The EtherType of the last one.
        ethertype: u16,
    },
    /// A previous finding has ended: the program sees frames that it can judge.
    Sees,
}

/// The remedies that were applied to unseen frames.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Nothing,
    Rearmed,
    GivenUp,
    Reported,
}

/// The comparison for one interface.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// The counter when no frame had reached the program since the previous look.
    unseen_from: Option<u64>,
    /// The number of looks since then that found more frames counted.
    looks: u32,
    received: u64,
    stage: Stage,
    /// When the driver got another copy because of unseen frames.
    rearmed_ms: Option<u64>,
    /// The counter when frames of foreign types were first counted, and the number of those frames
    /// since.
    foreign: Option<(u64, u64)>,
    foreign_is_reported: bool,
}

impl Frames {
    /// Returns a result if what the program saw is enough to know that all is well; then no counter
    /// of the interface has to be read.
    pub fn settles(&mut self, seen: &FramesSeen) -> Option<Option<Finding>> {
        let is_foreign = seen.foreign_frames() > 0 || self.foreign.is_some();
        if seen.arrived == 0 || is_foreign {
            return None;
        }
        let was_reported = self.is_reported();
        *self = Self {
            rearmed_ms: self.rearmed_ms,
            ..Self::default()
        };
        Some(was_reported.then_some(Finding::Sees))
    }

    /// Returns whether a reported finding still holds.
    pub fn is_reported(&self) -> bool {
        self.stage != Stage::Nothing || self.foreign_is_reported
    }

    /// Evaluates a look at the interface; returns what is to be done or reported.
    pub fn look(&mut self, look: FrameCounts) -> Option<Finding> {
        if let Some(finding) = self.settles(&look.seen) {
            return finding;
        }
        let FrameCounts { received, .. } = look;
        // A driver that resets may count from 0 again.
        let is_more = received > self.received;
        if received < self.received {
            self.unseen_from = None;
            self.foreign = None;
        }
        self.received = received;
        if look.seen.arrived != 0 {
            let was_unseen = self.stage != Stage::Nothing;
            self.stage = Stage::Nothing;
            self.unseen_from = Some(received);
            self.looks = 0;
            let sees = (was_unseen && !self.foreign_is_reported).then_some(Finding::Sees);
            return self.look_for_ip(look).or(sees);
        }
        let from = *self.unseen_from.get_or_insert(received);
        self.looks = self
            .looks
            .saturating_add(u32::from(is_more && received > from));
        let unseen = received.saturating_sub(from);
        let is_soon = |at_ms: u64| look.now_ms < at_ms.saturating_add(AGAIN_MS);
        let was_rearmed = self.stage == Stage::Rearmed || self.rearmed_ms.is_some_and(is_soon);
        let (enough, next) = match (self.stage, look.native) {
            (Stage::Nothing, true) if !was_rearmed => {
                (REARM_FROM, Some((Stage::Rearmed, Finding::Rearm(unseen))))
            }
            (Stage::Nothing | Stage::Rearmed, true) => (
                GIVE_UP_FROM,
                Some((Stage::GivenUp, Finding::Generic(unseen))),
            ),
            (Stage::Nothing | Stage::Rearmed | Stage::GivenUp, _)
                if look.native || look.counts_what_enters =>
            {
                (
                    GIVE_UP_FROM,
                    Some((Stage::Reported, Finding::Blind(unseen))),
                )
            }
            (Stage::Rearmed | Stage::GivenUp, _) => (
                GIVE_UP_FROM,
                Some((Stage::Nothing, Finding::Filtered(unseen))),
            ),
            (Stage::Nothing | Stage::Reported, _) => (GIVE_UP_FROM, None),
        };
        if unseen >= enough && self.looks >= LOOKS {
            let (stage, finding) = next?;
            if stage == Stage::Rearmed {
                self.rearmed_ms = Some(look.now_ms);
            }
            self.stage = stage;
            self.unseen_from = Some(received);
            self.looks = 0;
            return Some(finding);
        }
        None
    }

    fn look_for_ip(&mut self, look: FrameCounts) -> Option<Finding> {
        let FrameCounts { received, seen, .. } = look;
        let Some((from, before)) = self.foreign else {
            self.foreign = Some((received, 0));
            return None;
        };
        let foreign = before.saturating_add(seen.foreign_frames());
        let frames = received.saturating_sub(from);
        if frames < FOREIGN_AMONG {
            self.foreign = Some((from, foreign));
            return None;
        }
        let is_most = foreign.saturating_mul(100) >= frames.saturating_mul(FOREIGN_MOST);
        self.foreign = (foreign > 0).then_some((received, 0));
        let was_reported = std::mem::replace(&mut self.foreign_is_reported, is_most);
        match (was_reported, is_most) {
            (false, true) => Some(Finding::Foreign {
                frames,
                ethertype: seen.foreign_type(),
            }),
            (true, false) => Some(Finding::Sees),
            (true, true) | (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests;
