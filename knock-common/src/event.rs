//! Events: what the kernel side reports to user space.

use bytemuck::{Pod, Zeroable};

use crate::{Address, Reason};

/// No door.
pub const NO_DOOR: u16 = u16::MAX;

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// When the grant ends, in milliseconds since boot; 0 if there is none. If the reason is [`Reason::SpaStale`], how
    /// far the packet's time is ahead of the wall clock, as a signed number of milliseconds. If it is
    /// [`Reason::SpaNotAllowed`] and the packet is one of fwknop, the index of the port that was refused; 0 if it was
    /// none.
    pub until_ms: u64,
    /// Where the packet came from.
    pub source: Address,
    /// Which address of this host it was sent to.
    pub destination: Address,
    /// Index of the door, or [`NO_DOOR`].
    pub door: u16,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub port: u16,
    /// Number of the [`crate::packet::Protocol`].
    pub protocol: u8,
    /// Number of the [`Reason`].
    pub reason: u8,
    /// How many knocks of the door have been made.
    pub stage: u16,
    /// Number of the user whose SPA packet it is, once the packet is authenticated; 0 is none.
    pub user: u16,
    /// Index of the interface that received the packet; 0 if the frame could not be read.
    pub interface: u32,
    /// The other address of a user's SPA packet: where it came from, if `source` is another address that it opened a
    /// door for; the address that it asks for, if it is refused because of that; else [`Address::ANY`].
    pub other: Address,
}

impl Event {
    /// Returns the reason.
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_code(self.reason)
    }
}

/// Reason, door, stage and user of an event: one word, because a BPF subprogram takes five registers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EventHead(u64);

impl EventHead {
    /// Returns a reason alone.
    #[inline(always)]
    pub const fn new(reason: Reason) -> Self {
        Self::at(reason, NO_DOOR, 0)
    }

    /// Returns a reason with a door, and how many of its knocks have been made.
    #[inline(always)]
    pub const fn at(reason: Reason, door: u16, stage: u8) -> Self {
        Self(reason as u64 | (stage as u64) << 8 | (door as u64) << 16)
    }

    /// Returns the same, about a user's packet.
    #[inline(always)]
    #[must_use]
    pub const fn of_user(self, user: u16) -> Self {
        Self(self.0 & 0xffff_ffff | (user as u64) << 32)
    }

    /// Returns the number of the user; 0 is none.
    #[inline(always)]
    pub const fn user(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Returns the number of the door, or [`NO_DOOR`].
    #[inline(always)]
    pub(crate) const fn door(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Returns how many of the door's knocks have been made.
    #[inline(always)]
    pub(crate) const fn stage(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Returns the number of the reason.
    #[inline(always)]
    pub(crate) const fn code(self) -> u8 {
        self.0 as u8
    }

    /// Returns the same door and stage with another reason.
    #[inline(always)]
    pub const fn because(self, reason: Reason) -> Self {
        Self(self.0 & !0xff | reason as u64)
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

    /// Returns the reason; [`Reason::OutOfSequence`] for a number that is none.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match Reason::from_code(self.0 as u8) {
            Some(reason) => reason,
            None => Reason::OutOfSequence,
        }
    }
}
