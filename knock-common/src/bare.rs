//! What replaces the Ethernet header on interfaces without one.

/// The EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// The EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// What is known about a packet that begins with its IP header, as on interfaces without Ethernet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bare {
    /// The EtherType that the packet would have in a frame.
    pub ethertype: u16,
    /// Whether it was sent to one host, not to a group.
    pub unicast: bool,
}

impl Bare {
    /// Derives it from the first octet of a packet, which has the version of IP.
    ///
    /// An octet with another version counts as IPv4, so the packet is one with a bad header: where only the octets are
    /// known, it may be IP behind something else, and must not pass unjudged.
    #[inline(always)]
    pub const fn from_version(first: u8) -> Self {
        Self {
            ethertype: match first >> 4 {
                6 => ETHERTYPE_IPV6,
                _ => ETHERTYPE_IPV4,
            },
            unicast: true,
        }
    }
}
