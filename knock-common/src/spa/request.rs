//! The request in an authenticated packet.

use crate::{
    Address,
    spa::layout::{OpenScratch, SpaDoorId},
};

/// The body of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// The address to open for; [`Address::ANY`] for the source of the packet.
    pub source: Address,
    /// The door.
    pub door: SpaDoorId,
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
            door: SpaDoorId((u64::from(door_high) << 32 | u64::from(door_low)).swap_bytes()),
            seconds: seconds.swap_bytes(),
            action: last >> 24 & !Self::WANTS_ANSWER,
            wants_answer: last >> 24 & Self::WANTS_ANSWER != 0,
            reserved: last & 0x00ff_ffff,
        }
    }

    /// Returns whether each field has a value of this version of the format.
    #[inline(always)]
    pub const fn is_readable(&self) -> bool {
        self.action <= Self::CLOSE && self.reserved == 0
    }

    /// Returns whether it asks to close the door.
    #[inline(always)]
    pub const fn closes(&self) -> bool {
        self.action == Self::CLOSE
    }
}
