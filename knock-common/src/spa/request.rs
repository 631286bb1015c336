//! What an authenticated packet asks for.

use bytemuck::{Pod, Zeroable};

use crate::{
    Address,
    spa::{layout::DoorId, open::OpenScratch},
};

/// The body of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// For whom; [`Address::ANY`] for the source of the packet.
    pub source: Address,
    /// The door.
    pub door: DoorId,
    /// For how many seconds; 0 for the door's `open_for`.
    pub seconds: u32,
    /// The lower bits of the octet for the action.
    action: u32,
    /// Whether the client wants an answer.
    pub wants_answer: bool,
    /// The octets that must be 0.
    reserved: u32,
}

impl Request {
    const WANTS_ANSWER: u32 = 0x80;
    const CLOSE: u32 = 1;

    /// Reads the body that was revealed.
    #[inline(always)]
    pub fn read(scratch: &OpenScratch) -> Self {
        let [a, b, c, d, door_high, door_low, seconds, last] = scratch.body();
        Self {
            source: Address {
                words: [a, b, c, d].map(u32::to_be),
            },
            door: DoorId((u64::from(door_high) << 32 | u64::from(door_low)).swap_bytes()),
            seconds: seconds.swap_bytes(),
            action: last >> 24 & !Self::WANTS_ANSWER,
            wants_answer: last >> 24 & Self::WANTS_ANSWER != 0,
            reserved: last & 0x00ff_ffff,
        }
    }

    /// Whether this version of the format has all that it says.
    #[inline(always)]
    pub const fn is_readable(&self) -> bool {
        self.action <= Self::CLOSE && self.reserved == 0
    }

    /// Whether it asks to close the door.
    #[inline(always)]
    pub const fn closes(&self) -> bool {
        self.action == Self::CLOSE
    }
}

/// What [`crate::access::use_door`] does because of a packet: one word, because a BPF subprogram takes five registers.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct DoorRequest(u64);

impl DoorRequest {
    /// No packet: a sequence was completed.
    pub const NONE: Self = Self(0);

    const SPA: u64 = 1 << 63;
    const CLOSES: u64 = 1 << 62;
    const USER_SHIFT: u32 = 44;
    /// Milliseconds of 557 years.
    const MS_MOST: u64 = (1 << Self::USER_SHIFT) - 1;

    /// A user asks to open the door for this long.
    #[inline(always)]
    pub const fn open(user: u16, open_for_ms: u64) -> Self {
        let ms = if open_for_ms < Self::MS_MOST {
            open_for_ms
        } else {
            Self::MS_MOST
        };
        Self(Self::SPA | (user as u64) << Self::USER_SHIFT | ms)
    }

    /// A user asks to close the door.
    #[inline(always)]
    pub const fn close(user: u16) -> Self {
        Self(Self::SPA | Self::CLOSES | (user as u64) << Self::USER_SHIFT)
    }

    /// Whether there is a packet.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 & Self::SPA != 0
    }

    /// Whether it asks to close the door.
    #[inline(always)]
    pub const fn closes(self) -> bool {
        self.0 & Self::CLOSES != 0
    }

    /// The number of the user; 0 if there is no packet.
    #[inline(always)]
    pub const fn user(self) -> u16 {
        (self.0 >> Self::USER_SHIFT) as u16
    }

    /// How long the grant lasts, in milliseconds.
    #[inline(always)]
    pub const fn open_for_ms(self) -> u64 {
        self.0 & Self::MS_MOST
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
}
