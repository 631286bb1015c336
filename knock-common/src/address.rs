//! IPv4 and IPv6 addresses in one form, so that one code path and one set of maps serve both.

use core::net::{IpAddr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

/// The third word of an IPv4-mapped address (RFC 4291, 2.5.5.2): `::ffff:0:0/96`.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form.
///
/// The sixteen octets are in network order, kept as four words so that the kernel side moves and
/// hashes words instead of bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct Address {
    /// Octets in network order, each word as it lies in memory.
    pub words: [u32; 4],
}

impl Address {
    /// The address `::`, which stands for every source where a key needs an address.
    pub const ANY: Self = Self { words: [0; 4] };

    /// Returns the mapped form of the four octets of an IPv4 address.
    #[inline(always)]
    pub fn from_v4(octets: [u8; 4]) -> Self {
        Self {
            words: [0, 0, MAPPED, u32::from_ne_bytes(octets)],
        }
    }

    /// Returns the sixteen octets of an IPv6 address.
    #[inline(always)]
    pub fn from_v6(octets: [u8; 16]) -> Self {
        Self {
            words: bytemuck::cast(octets),
        }
    }

    /// Returns whether this is an IPv4 address in mapped form.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.words;
        a == 0 && b == 0 && c == MAPPED
    }

    /// Returns whether a host can have it: not "this network", loopback, multicast, the limited broadcast
    /// (RFC 1122, 3.2.1.3; RFC 6890), `::`, `::1` or IPv6 multicast (RFC 4291). Linux refuses these as
    /// sources, too. Like Linux it accepts 240.0.0.0/4, which some networks use.
    #[inline(always)]
    pub const fn is_host(&self) -> bool {
        let [a, b, c, d] = self.words;
        let [first, ..] = d.to_ne_bytes();
        if a == 0 && b == 0 && c == MAPPED {
            return first != 0 && first != 127 && first & 0xf0 != 224 && d != u32::MAX;
        }
        let [group, ..] = a.to_ne_bytes();
        let is_low = a == 0 && b == 0 && c == 0 && (d == 0 || d == 1_u32.to_be());
        group != 0xff && !is_low
    }

    /// Returns whether it is an address of the loopback interface: 127.0.0.0/8 or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let [a, b, c, d] = self.words;
        let [first, ..] = d.to_ne_bytes();
        a == 0 && b == 0 && (c == MAPPED && first == 127 || c == 0 && d == 1_u32.to_be())
    }

    /// Returns the same address with its last `bits` bits cleared; `bits` is at most 127.
    #[inline(always)]
    pub fn without_low_bits(self, bits: u32) -> Self {
        let [high, low]: [u64; 2] = bytemuck::cast(self.words);
        let keep = |word: u64, bits: u32| match bits {
            64.. => 0,
            _ => word & u64::MAX.wrapping_shl(bits).to_be(),
        };
        let words = [keep(high, bits.saturating_sub(64)), keep(low, bits)];
        Self {
            words: bytemuck::cast(words),
        }
    }

    /// Returns the octets in network order.
    pub fn octets(&self) -> [u8; 16] {
        bytemuck::cast(self.words)
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.octets()).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_neither_loopback_nor_multicast_addresses() {
        for (text, is_host, is_loopback) in [
            ("203.0.113.9", true, false),
            ("1.0.0.0", true, false),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("126.255.255.255", true, false),
            ("127.0.0.1", false, true),
            ("127.255.255.254", false, true),
            ("128.0.0.1", true, false),
            ("223.255.255.255", true, false),
            ("224.0.0.1", false, false),
            ("239.255.255.255", false, false),
            ("240.0.0.1", true, false),
            ("255.255.255.254", true, false),
            ("255.255.255.255", false, false),
            ("::", false, false),
            ("::1", false, true),
            ("::2", true, false),
            ("::1:0:1", true, false),
            ("1::1", true, false),
            ("fe80::1", true, false),
            ("fec0::", true, false),
            ("ff02::1", false, false),
            ("ff00::", false, false),
            ("7f00::1", true, false),
        ] {
            let address = Address::from(text.parse::<IpAddr>().unwrap());
            assert_eq!(address.is_host(), is_host, "{text}");
            assert_eq!(address.is_loopback(), is_loopback, "{text}");
        }
    }

    #[test]
    fn conversion_keeps_addresses() {
        for (name, text, is_v4) in [
            ("IPv4", "203.0.113.9", true),
            ("IPv4 zero", "0.0.0.0", true),
            ("IPv6", "2001:db8::1", false),
            ("IPv6 unspecified", "::", false),
            ("IPv6 loopback", "::1", false),
        ] {
            let ip: IpAddr = text.parse().unwrap();
            let address = Address::from(ip);
            assert_eq!(IpAddr::from(address), ip, "{name}");
            assert_eq!(address.is_v4(), is_v4, "{name}");
        }
    }
}
