//! The result of a step of a judgement.

use crate::Reason;

/// The result of a step of a judgement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpaStep {
    /// The packet was judged and reported.
    Judged(Reason),
    /// It is none of the formats that were tried, and nothing was reported.
    NotSpa,
    /// It is noise, and its event limit admits a report.
    Noise,
    /// It was judged and reported, and it is authentic: it may be answered.
    Authentic(Reason),
    /// The next step decides.
    Continue,
}

impl SpaStep {
    /// Above all numbers of reasons.
    const NOT_SPA: u64 = 1 << 8;
    const NOISE: u64 = 1 << 9;
    const CONTINUE: u64 = 1 << 10;
    const AUTHENTIC: u64 = 1 << 11;

    /// Returns the word, because a BPF subprogram returns one register.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        match self {
            Self::Judged(reason) => reason as u64,
            Self::NotSpa => Self::NOT_SPA,
            Self::Noise => Self::NOISE,
            Self::Authentic(reason) => Self::AUTHENTIC | reason as u64,
            Self::Continue => Self::CONTINUE,
        }
    }

    /// Reads the word; one that is none means [`Self::NotSpa`].
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        match Reason::from_code(word as u8) {
            _ if word == Self::CONTINUE => Self::Continue,
            _ if word == Self::NOISE => Self::Noise,
            Some(reason) if word < Self::NOT_SPA => Self::Judged(reason),
            Some(reason) if word >> 8 == Self::AUTHENTIC >> 8 => Self::Authentic(reason),
            _ => Self::NotSpa,
        }
    }
}
