//! The result of a knock.

use crate::{
    Reason, automaton::Progress, event::EventHead, source_knocks::OtpPosition, time::TICK_BITS,
};

/// The result of a knock: an event to report, a completed sequence, or a request for [`SourceKnocks`].
///
/// It is one word, because a BPF subprogram returns one register.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision(u64);

impl Decision {
    const COMPLETED: u64 = 1 << 63;
    const ASKS: u64 = 1 << 62;
    /// The lower bits have the event to report if the node has changed before [`SourceKnocks`] are known.
    const POSITION_SHIFT: u32 = 32;

    #[inline(always)]
    pub(crate) const fn report(head: EventHead) -> Self {
        Self(head.to_word())
    }

    /// Keeps the node and the elapsed time only.
    #[inline(always)]
    pub(crate) const fn complete(progress: Progress) -> Self {
        Self(Self::COMPLETED | progress.to_word() >> TICK_BITS)
    }

    #[inline(always)]
    pub(crate) const fn ask(position: OtpPosition) -> Self {
        let otherwise = EventHead::new(Reason::Contended).to_word();
        Self(Self::ASKS | position.to_word() << Self::POSITION_SHIFT | otherwise)
    }

    /// Returns the word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Reads the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Returns the position whose [`SourceKnocks`] are needed to judge the knock.
    #[inline(always)]
    pub(crate) const fn asked(self) -> Option<OtpPosition> {
        if self.0 & (Self::COMPLETED | Self::ASKS) != Self::ASKS {
            return None;
        }
        Some(OtpPosition::from_word(self.0 >> Self::POSITION_SHIFT))
    }

    #[inline(always)]
    pub(crate) const fn completed(self) -> Option<Progress> {
        if self.0 & Self::COMPLETED == 0 {
            return None;
        }
        Some(Progress::from_word(self.0 << TICK_BITS))
    }

    #[inline(always)]
    pub(crate) const fn head(self) -> EventHead {
        EventHead::from_word(self.0)
    }
}
