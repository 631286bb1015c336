//! The input of the programs that generate packets, which share this file.

use bytemuck::{Pod, Zeroable};

/// How a packet is changed into the next one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Plan {
    /// The packet's number, which each packet increments.
    pub next: u64,
    /// Offset of the last four octets of the source address; 0 leaves the address unchanged.
    pub source_at: u32,
    /// How many sources there are, less one; they are a power of two.
    pub sources: u32,
    /// Packets from a source before the next source follows, as a power of two.
    pub turn: u32,
    /// The first source, as the number that its last four octets make; its low bits are 0.
    pub first: u32,
    /// Offset of the destination port; 0 leaves the port unchanged.
    pub port_at: u32,
    /// How many destination ports `CHOICES` has, less one; they are a power of two.
    pub ports: u32,
    /// Offset of the IPv4 header's checksum, which is updated; 0 for none.
    pub header_sum_at: u32,
    /// Offset of the checksum of TCP or UDP, which is updated; 0 for none.
    pub payload_sum_at: u32,
    /// The interface that frames leave through.
    pub link: u32,
    /// Whether sources come in an order that no cache predicts.
    pub shuffled: u32,
    /// Nanoseconds from one burst of `flood` to the next; 0 sends as fast as possible.
    pub gap_ns: u64,
    /// When `flood` may start the next burst, in nanoseconds of `CLOCK_MONOTONIC`.
    pub due_ns: u64,
    /// Frames in a burst, one at least.
    pub burst: u32,
    /// Frames left in this burst.
    pub left: u32,
    /// Offset of the payload that `deal` replaces.
    pub payload_at: u32,
    /// Octets of the payload, less than [`PAYLOAD_MAX`].
    pub payload_length: u32,
}

/// Destination ports that a plan may choose from.
pub const CHOICES_MAX: u32 = 1 << 16;
/// Payloads that `deal` can choose from, a power of two.
pub const PAYLOADS: u32 = 512;
/// More octets than a payload has, a power of two.
pub const PAYLOAD_MAX: usize = 256;
