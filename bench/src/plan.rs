//! The input of the programs that make packets, which are compiled with it.

use bytemuck::{Pod, Zeroable};

/// How a packet becomes the next one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Plan {
    /// The packet's number; counted up with each.
    pub next: u64,
    /// Where the last four octets of the source address are; 0 leaves it as it is.
    pub source_at: u32,
    /// How many sources there are, less one; they are a power of two.
    pub sources: u32,
    /// As many packets, as a power of two, come from a source before the next one's turn.
    pub turn: u32,
    /// The first source, as the number that its last four octets make; its low bits are 0.
    pub first: u32,
    /// Where the destination port is; 0 leaves it as it is.
    pub port_at: u32,
    /// How many destination ports `CHOICES` has, less one; they are a power of two.
    pub ports: u32,
    /// Where the IPv4 header's checksum is, kept right if it is anywhere.
    pub header_sum_at: u32,
    /// Where the checksum of TCP or UDP is, kept right if it is anywhere.
    pub payload_sum_at: u32,
    /// The interface that frames leave through.
    pub link: u32,
    /// Whether sources are drawn in an order that no cache foresees.
    pub shuffled: u32,
    /// Nanoseconds from one burst of `flood` to the next; 0 sends as fast as possible.
    pub gap_ns: u64,
    /// When `flood` may begin the next one, in nanoseconds of `CLOCK_MONOTONIC`.
    pub due_ns: u64,
    /// Frames in a burst, one at least.
    pub burst: u32,
    /// Frames that are left of this one.
    pub left: u32,
}

/// Destination ports that a plan may choose from.
pub const CHOICES_MAX: u32 = 1 << 16;
