//! Prefixes of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use knock_common::{Address, GrantPrefix};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An address prefix: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    /// The address; bits after the prefix are zero.
    pub address: IpAddr,
    /// Length in bits: at most 32 for IPv4, 128 for IPv6.
    pub bits: u8,
}

/// A prefix as in the maps: address and length in bits, with IPv4 mapped into IPv6.
pub type MappedPrefix = (Address, u32);

impl Prefix {
    /// Returns a prefix of the maps, which may have bits set after it.
    pub fn from_mapped((address, bits): MappedPrefix) -> Self {
        let address = IpAddr::from(address);
        let bits = match address {
            IpAddr::V4(_) => bits.saturating_sub(96),
            IpAddr::V6(_) => bits,
        };
        let whole = Self::of(address);
        Self {
            bits: u8::try_from(bits).unwrap_or(u8::MAX).min(whole.bits),
            ..whole
        }
        .cleared()
    }

    /// Returns the prefix that contains only `address`.
    pub const fn of(address: IpAddr) -> Self {
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, bits }
    }

    /// Returns what a grant covers whose key has this source.
    pub fn covered(source: Address, grant_prefix: GrantPrefix) -> Self {
        Self {
            address: source.into(),
            bits: grant_prefix.bits_for(source),
        }
        .cleared()
    }

    /// Returns whether it has an address.
    pub fn has(self, address: IpAddr) -> bool {
        let same_family = self.address.is_ipv4() == address.is_ipv4();
        same_family && self == Self { address, ..self }.cleared()
    }

    /// Returns whether it has every address of another prefix.
    pub fn contains(self, other: Self) -> bool {
        self.bits <= other.bits && self.has(other.address)
    }

    /// Returns its two halves. None for a single address.
    pub(crate) fn halves(self) -> Option<[Self; 2]> {
        let bits = self.bits.checked_add(1)?;
        let first = Self { bits, ..self };
        let address = match self.address {
            IpAddr::V4(v4) => {
                let bit = 1_u32.checked_shl(32_u32.checked_sub(bits.into())?)?;
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() | bit))
            }
            IpAddr::V6(v6) => {
                let bit = 1_u128.checked_shl(128_u32.checked_sub(bits.into())?)?;
                IpAddr::V6((v6.to_bits() | bit).into())
            }
        };
        Some([first, Self { address, bits }])
    }

    /// Returns the prefix in the form of the maps: IPv4 is mapped, so it is 96 bits longer.
    pub fn mapped(self) -> MappedPrefix {
        let before = match self.address {
            IpAddr::V4(_) => 96,
            IpAddr::V6(_) => 0,
        };
        (self.address.into(), before + u32::from(self.bits))
    }

    /// Returns the prefix with all bits after it cleared.
    pub(crate) fn cleared(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, ..self }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::of(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
