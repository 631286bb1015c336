//! What user space hears.

use bytemuck::{Pod, Zeroable};

use crate::{
    Address, Reason, Tally, World, packet::Segment, reason::Telling, time::Moment, world::Word,
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

/// The packet that an event is about.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// What was seen.
    pub segment: &'a Segment,
    /// From whom.
    pub source: Address,
    /// When.
    pub now: Moment,
}

/// What is known besides the packet and the reason.
#[derive(Clone, Copy, Debug)]
pub struct Detail {
    /// Index of the door, or [`NO_DOOR`].
    pub door: u16,
    /// How many knocks of the door have been made.
    pub stage: u8,
    /// When the grant ends, in milliseconds since boot; 0 if there is none.
    pub until_ms: u64,
}

impl Detail {
    /// Nothing.
    pub const NONE: Self = Self {
        door: NO_DOOR,
        stage: 0,
        until_ms: 0,
    };
}

impl Witness<'_> {
    /// Tells user space, if the reason is to be told and the gate lets it through.
    #[inline(always)]
    pub fn tell<W: World>(&self, world: &W, reason: Reason, detail: Detail) {
        if !admit(world, self.now, reason.telling()) {
            return;
        }
        emit(
            world,
            &Event {
                at_ns: self.now.nanos(),
                until_ms: detail.until_ms,
                source: self.source,
                door: detail.door,
                source_port: self.segment.source_port,
                port: self.segment.destination_port,
                protocol: self.segment.protocol as u8,
                reason: reason as u8,
                stage: detail.stage,
                padding: [0; 7],
            },
        );
    }
}

/// Tells user space of a frame that could not be read.
#[inline(always)]
pub fn tell_unreadable<W: World>(world: &W, reason: Reason) {
    if reason.telling() == Telling::Never {
        return;
    }
    let now = world.now();
    if admit(world, now, reason.telling()) {
        let at_ns = now.nanos();
        emit(
            world,
            &Event {
                at_ns,
                door: NO_DOOR,
                reason: reason as u8,
                ..Event::default()
            },
        );
    }
}

#[inline(always)]
fn emit<W: World>(world: &W, event: &Event) {
    if !world.emit(event) {
        world.tally(Tally::EventsLost);
    }
}

#[inline(always)]
fn admit<W: World>(world: &W, now: Moment, telling: Telling) -> bool {
    let admitted = match telling {
        Telling::Never => return false,
        Telling::Always => true,
        Telling::Drops | Telling::Knocks => {
            world.gate(telling).is_some_and(|gate| take(&gate, now))
        }
    };
    if !admitted {
        world.tally(Tally::EventsLeftOut);
    }
    admitted
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
