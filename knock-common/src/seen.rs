//! Records for user space: whether frames reach the program, and whether it can judge them.
//!
//! A driver can lose the program while the kernel still reports it as attached. User space therefore compares
//! what the kernel counts as received with [`FramesSeen`]. A frame costs a load and a comparison; only the first one
//! since user space looked costs a store, so CPUs don't contend for the cache line.

use bytemuck::{Pod, Zeroable};

use crate::{Bytes, packet};

/// Slots of `FRAMES_SEEN`. Interfaces whose numbers are equal in the lowest eight bits share one.
pub const SLOTS: u32 = 1 << 8;

/// Smaller values are the length of an IEEE 802.3 frame.
const ETHERTYPE_MIN: u16 = 0x0600;

/// The frames that the program saw on the interfaces of a slot since user space last cleared it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Pod, PartialEq, Zeroable)]
pub struct FramesSeen {
    /// [`FramesSeen::ARRIVED`] if a frame reached the program, and [`FramesSeen::BLOCKS`].
    pub arrived: u64,
    /// Frames of types that the program can't judge and that may carry IP: their number << 16, and the type of the
    /// last one. CPUs that write at the same time may lose some.
    pub foreign: u64,
}

impl FramesSeen {
    /// A frame reached the program.
    pub const ARRIVED: u64 = 1;
    /// Commands have blocked sources. User space writes it here because the program reads this word for each frame
    /// anyway: without blocks, they cost nothing.
    pub const BLOCKS: u64 = 2;

    /// Returns the number of these frames.
    pub const fn foreign_frames(&self) -> u64 {
        self.foreign >> 16
    }

    /// Returns the type of the last one.
    pub const fn foreign_type(&self) -> u16 {
        self.foreign as u16
    }

    /// Returns the word [`FramesSeen::foreign`] after one more frame.
    #[inline(always)]
    pub const fn and_foreign(word: u64, ethertype: u16) -> u64 {
        (word >> 16).wrapping_add(1) << 16 | ethertype as u64
    }

    /// Combines the records of two interfaces.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        let frames = self.foreign_frames().saturating_add(other.foreign_frames());
        let last = match other.foreign {
            0 => self.foreign_type(),
            _ => other.foreign_type(),
        };
        Self {
            arrived: self.arrived | other.arrived,
            foreign: frames << 16 | last as u64,
        }
    }
}

/// Returns the slot of an interface, by its number.
#[inline(always)]
pub const fn slot(interface: u32) -> u32 {
    interface & (SLOTS - 1)
}

/// Returns the EtherType of a frame that is neither IPv4 nor IPv6, unless the type serves the link itself. Such a frame
/// may carry IP to another interface, or its bytes are not an Ethernet header at all.
#[inline(always)]
pub fn foreign_type<B: Bytes + ?Sized>(bytes: &B) -> Option<u16> {
    packet::ethertype(bytes).filter(|&ethertype| !serves_link(ethertype))
}

/// Returns whether frames of this type never carry IP: 802.3 frames (STP, CDP, …), and the types that IEEE 802 and
/// IETF protocols use for the link itself.
const fn serves_link(ethertype: u16) -> bool {
    matches!(
        ethertype,
        // 802.3, ARP, Wake-on-LAN, TRILL's IS-IS, RARP, loopback.
        ..ETHERTYPE_MIN | 0x0806 | 0x0842 | 0x22f4 | 0x8035 | 0x9000
        // Pause and priority flow control, LACP and its kin, 802.1X, LLDP, MRP, PTP, CFM, MVRP, MMRP.
        | 0x8808 | 0x8809 | 0x888e | 0x88cc | 0x88e3 | 0x88f7 | 0x8902 | 0x88f5 | 0x88f6
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_may_carry_ip_are_foreign() {
        let frame = |types: &[u16]| {
            let mut frame = std::vec![2; 12];
            for (place, ethertype) in types.iter().enumerate() {
                if place > 0 {
                    frame.extend([0, 7]);
                }
                frame.extend(ethertype.to_be_bytes());
            }
            frame.extend([0; 46]);
            frame
        };
        let bare_ip = knock_frame::eth()
            .ip4("192.0.2.1", "192.0.2.2")
            .tcp(40_000, 22, packet::flag::SYN)
            .bytes()
            .split_off(14);
        for (name, bytes, expected) in [
            ("ARP", frame(&[0x0806]), None),
            ("ARP in a VLAN", frame(&[0x8100, 0x0806]), None),
            ("spanning tree", frame(&[0x0027]), None),
            ("LLDP", frame(&[0x88cc]), None),
            ("PPPoE", frame(&[0x8864]), Some(0x8864)),
            ("PPPoE in a VLAN", frame(&[0x8100, 0x8864]), Some(0x8864)),
            (
                "PPPoE in two",
                frame(&[0x88a8, 0x8100, 0x8864]),
                Some(0x8864),
            ),
            ("MACsec", frame(&[0x88e5]), Some(0x88e5)),
            ("MPLS", frame(&[0x8847]), Some(0x8847)),
            ("an IPv4 packet without Ethernet", bare_ip, Some(0xc000)),
            ("cut before the type", std::vec![2; 13], None),
        ] {
            assert_eq!(foreign_type(&bytes[..]), expected, "{name}");
        }
    }

    #[test]
    fn the_word_counts_foreign_frames_and_keeps_the_last_type() {
        let mut word = 0;
        for (ethertype, frames) in [(0x8864, 1), (0x8864, 2), (0xffff, 3), (0x8847, 4)] {
            word = FramesSeen::and_foreign(word, ethertype);
            let seen = FramesSeen {
                arrived: 1,
                foreign: word,
            };
            assert_eq!(
                (seen.foreign_frames(), seen.foreign_type()),
                (frames, ethertype)
            );
        }
        let one = FramesSeen {
            arrived: 0,
            foreign: word,
        };
        let other = FramesSeen {
            arrived: 1,
            foreign: 0,
        };
        for (both, name) in [(one.and(other), "left"), (other.and(one), "right")] {
            assert_eq!(
                both,
                FramesSeen {
                    arrived: 1,
                    foreign: word
                },
                "{name}"
            );
        }
    }

    #[test]
    fn the_slot_is_the_lowest_octet_of_the_number() {
        for (interface, expected) in [(0, 0), (1, 1), (255, 255), (256, 0), (u32::MAX, 255)] {
            assert_eq!(slot(interface), expected, "{interface}");
        }
    }
}
