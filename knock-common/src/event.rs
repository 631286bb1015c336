//! What user space hears.

use bytemuck::{Pod, Zeroable};

use crate::{
    Address, Reason, Tally, World, reason::Telling, time::Moment, visit::Visit, world::Word,
};

/// Events that a gate lets through in a window, on each CPU.
const GATE_EVENTS: u64 = 64;
/// The window of a gate, as a power of two of nanoseconds: 268 ms.
const GATE_WINDOW_SHIFT: u32 = 28;

/// No door.
pub const NO_DOOR: u16 = u16::MAX;

/// One thing that happened.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// When the grant ends, in milliseconds since boot; 0 if there is none.
    pub until_ms: u64,
    /// Where the packet came from.
    pub source: Address,
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
    pub stage: u8,
    /// Explicit padding.
    pub padding: [u8; 7],
}

impl Event {
    /// Why.
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_code(self.reason)
    }
}

/// What an event says besides who came: one word, so that it can be handed to a function as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct What(u64);

impl What {
    /// A reason, and nothing more.
    #[inline(always)]
    pub const fn new(reason: Reason) -> Self {
        Self::at(reason, NO_DOOR, 0)
    }

    /// A reason, and how many knocks of which door have been made.
    #[inline(always)]
    pub const fn at(reason: Reason, door: u16, stage: u8) -> Self {
        Self(reason as u64 | (stage as u64) << 8 | (door as u64) << 16)
    }

    /// The same place with another reason.
    #[inline(always)]
    pub const fn because(self, reason: Reason) -> Self {
        Self(self.0 & !0xff | reason as u64)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The reason; [`Reason::NotBegun`] for a number that is none.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match Reason::from_code(self.0 as u8) {
            Some(reason) => reason,
            None => Reason::NotBegun,
        }
    }
}

/// Tells user space, if the reason is to be told and the gate lets it through.
#[inline(always)]
pub fn tell<W: World>(world: &W, visit: &Visit, what: What, until_ms: u64) {
    let telling = what.reason().telling();
    let admitted = match telling {
        Telling::Never => return,
        Telling::Always => true,
        Telling::Drops | Telling::Knocks => world
            .gate(telling)
            .is_some_and(|gate| take(&gate, visit.now())),
    };
    if !admitted {
        world.tally(Tally::EventsLeftOut);
        return;
    }
    let event = Event {
        at_ns: visit.now_ns,
        until_ms,
        source: visit.source,
        door: (what.0 >> 16) as u16,
        source_port: visit.source_port,
        port: visit.port,
        protocol: visit.protocol,
        reason: what.0 as u8,
        stage: (what.0 >> 8) as u8,
        padding: [0; 7],
    };
    if !world.emit(&event) {
        world.tally(Tally::EventsLost);
    }
}

/// Takes one of the window's events; the word belongs to this CPU alone.
#[inline(always)]
fn take(gate: &impl Word, now: Moment) -> bool {
    let window = now.nanos() >> GATE_WINDOW_SHIFT;
    let held = gate.load();
    let used = if held >> 16 == window {
        held & 0xffff
    } else {
        0
    };
    if used >= GATE_EVENTS {
        return false;
    }
    gate.store(window << 16 | used.wrapping_add(1));
    true
}
