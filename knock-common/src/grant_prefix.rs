//! How much of a source's network a grant covers.

use bytemuck::{Pod, Zeroable};

use crate::Address;

const IPV4_BITS: u8 = 32;
const IPV6_BITS: u8 = 128;

/// The prefixes that the grants of a door cover, by family; the default covers the source alone.
///
/// It holds how many bits behind each prefix are free, so that zeros in a map mean single addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct GrantPrefix {
    ipv4_free: u8,
    ipv6_free: u8,
}

impl GrantPrefix {
    /// Grants cover the source alone.
    pub const SINGLE: Self = Self {
        ipv4_free: 0,
        ipv6_free: 0,
    };

    /// Grants cover prefixes of these lengths, in bits: at most 32 for IPv4 and 128 for IPv6.
    pub const fn new(ipv4: u8, ipv6: u8) -> Self {
        Self {
            ipv4_free: IPV4_BITS.saturating_sub(ipv4),
            ipv6_free: IPV6_BITS.saturating_sub(ipv6),
        }
    }

    /// Returns the length for IPv4, in bits.
    pub const fn ipv4(self) -> u8 {
        IPV4_BITS.saturating_sub(self.ipv4_free)
    }

    /// Returns the length for IPv6, in bits.
    pub const fn ipv6(self) -> u8 {
        IPV6_BITS.saturating_sub(self.ipv6_free)
    }

    /// Returns the length for the family of an address, in bits.
    pub fn bits_for(self, address: Address) -> u8 {
        match address.is_v4() {
            true => self.ipv4(),
            false => self.ipv6(),
        }
    }

    /// Returns whether grants cover single addresses, of both families.
    #[inline(always)]
    pub const fn is_single(self) -> bool {
        self.ipv4_free == 0 && self.ipv6_free == 0
    }

    /// Returns the first address of the prefix of a source, which is the source of its grants in maps.
    #[inline(always)]
    pub fn first_of(self, source: Address) -> Address {
        let free = match source.is_v4() {
            true => self.ipv4_free,
            false => self.ipv6_free,
        };
        source.without_low_bits(free.into())
    }

    /// Returns whether the prefix that begins at `first` has an address.
    pub fn covers(self, first: Address, address: Address) -> bool {
        self.first_of(address) == first
    }

    /// Returns the word, as a port's rule has it.
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        self.ipv4_free as u32 | (self.ipv6_free as u32) << 8
    }

    /// Reads the word.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self {
            ipv4_free: word as u8,
            ipv6_free: (word >> 8) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn a_prefix_has_the_addresses_that_share_its_first_bits() {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let first = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff";
        for (ipv4, ipv6, source, expected) in [
            (32, 64, "203.0.113.9", "203.0.113.9"),
            (24, 128, "203.0.113.9", "203.0.113.0"),
            (31, 128, "203.0.113.9", "203.0.113.8"),
            (16, 128, "203.0.113.9", "203.0.0.0"),
            (24, 64, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            (24, 128, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6"),
            (32, 127, first, "2001:db8:ffff:ffff:ffff:ffff:ffff:fffe"),
            (32, 97, first, "2001:db8:ffff:ffff:ffff:ffff:8000:0"),
            (32, 96, first, "2001:db8:ffff:ffff:ffff:ffff::"),
            (32, 95, first, "2001:db8:ffff:ffff:ffff:fffe::"),
            (32, 65, first, "2001:db8:ffff:ffff:8000::"),
            (32, 64, first, "2001:db8:ffff:ffff::"),
            (32, 63, first, "2001:db8:ffff:fffe::"),
            (32, 56, first, "2001:db8:ffff:ff00::"),
            (32, 48, first, "2001:db8:ffff::"),
            (32, 33, first, "2001:db8:8000::"),
            (32, 32, first, "2001:db8::"),
        ] {
            let prefix = GrantPrefix::new(ipv4, ipv6);
            let name = || std::format!("/{ipv4} and /{ipv6} of {source}");
            let (source, expected) = (address(source), address(expected));
            assert_eq!(prefix.first_of(source), expected, "{}", name());
            assert!(prefix.covers(expected, source), "{}", name());
            assert_eq!(prefix.first_of(expected), expected, "again: {}", name());
            assert_eq!((prefix.ipv4(), prefix.ipv6()), (ipv4, ipv6), "{}", name());
            assert_eq!(
                GrantPrefix::from_word(prefix.to_word()),
                prefix,
                "{}",
                name()
            );
        }
        assert!(GrantPrefix::new(32, 128).is_single());
        assert_eq!(GrantPrefix::new(32, 128), GrantPrefix::default());
    }
}
