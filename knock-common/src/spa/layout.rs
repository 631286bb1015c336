//! The layout of the maps of single packet authorization. As in [`crate::layout`], each type is `#[repr(C)]`, and a
//! change raises [`crate::layout::VERSION`].

use bytemuck::{Pod, Zeroable};

use crate::{
    Address, fwknop::Passphrase, hmac_sha256, packet_info::PacketInfo, sha256::Sha256Work,
    siphash::SipKey,
};

/// Gates: that of the host key, and during a change of host keys that of the old one.
pub const GATES: u32 = 2;
/// Keys of clients, each counted once per gate. User space sets the capacity of `SPA_KEYS` to what is needed.
pub const KEYS_MAX: u32 = 131_072;
/// Stamps of keys, including removed ones. `SPA_LAST` grows with its content.
pub const LAST_MAX: u32 = 65_536;
/// Pairs of user and door. User space sets the capacity of `SPA_MAY` to what is needed.
pub const MAY_MAX: u32 = 1 << 20;
/// Packets of fwknop that were used or have expired within the last 240 seconds. `SPA_SEEN` grows with its content.
pub const SEEN_MAX: u32 = 65_536;
/// Keys of fwknop users. Each packet to a port with this format costs an HMAC per key.
pub const FWKNOP_KEYS_MAX: u32 = 16;
/// Source prefixes of a fwknop key.
pub const FWKNOP_SOURCES_MAX: usize = 16;

/// The keys of a gate, derived from the host's public key.
///
/// They authenticate nobody. They make it cheap to drop packets of sources that don't know the host's public key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Gate {
    /// The key of the hash in the last eight octets of a packet.
    pub check: SipKey,
    /// The key of the mask that hides id and stamp.
    pub mask: SipKey,
    /// 1 if the gate is used, 0 if no packet passes it.
    pub is_used: u64,
}

/// The id of a client's key: the first 8 octets of SHA-256("knock spa v1 id" ‖ public key), little-endian.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct SpaKeyId(pub u64);

/// The id of a door: the first 8 octets of SHA-256("knock spa v1 door" ‖ name), little-endian.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct SpaDoorId(pub u64);

impl SpaDoorId {
    /// The first of the user's doors.
    pub const FIRST: Self = Self(0);
}

/// The key of an entry of `SPA_KEYS`: a pair of client and host has keys of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct SpaKeyName {
    /// The client's key.
    pub id: SpaKeyId,
    /// The index of the host key's gate.
    pub gate: u32,
    /// Explicit padding.
    pub padding: u32,
}

impl SpaKeyName {
    /// Returns the key of a client, for the host key of a gate.
    #[inline(always)]
    pub const fn new(id: SpaKeyId, gate: u32) -> Self {
        Self {
            id,
            gate,
            padding: 0,
        }
    }
}

/// The keys and rights of a client's key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct SpaKey {
    /// Authenticates the packet.
    pub mac: hmac_sha256::HmacKey,
    /// Hides the request.
    pub cipher: hmac_sha256::HmacKey,
    /// When key or user expires, whichever is first, in nanoseconds since 1970; `u64::MAX` is never.
    pub not_after_ns: u64,
    /// The number of the user, from 1.
    pub user: u16,
    /// [`Self::BIND`] and [`Self::FOR_OTHERS`].
    pub flags: u16,
    /// Explicit padding.
    pub padding: u32,
}

impl SpaKey {
    /// A packet must name the address that it asks for; `::` is refused.
    pub const BIND: u16 = 1 << 0;
    /// A packet may ask for an address that is not its source.
    pub const FOR_OTHERS: u16 = 1 << 1;
}

/// The key of an entry of `SPA_MAY`: a user, and a door by its id or by a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct SpaMayKey {
    /// A [`SpaDoorId`], or an index of the port table.
    number: u64,
    /// The number of the user, or [`Self::ANYBODY`].
    user: u16,
    /// Whether `number` is a port.
    is_port: u16,
    /// Explicit padding.
    padding: u32,
}

impl SpaMayKey {
    /// Under this user each door has an entry, so that an event can name a door that the user may not open.
    pub const ANYBODY: u16 = 0;

    /// Returns a user, and a door by its id. Each user also has an entry for [`SpaDoorId::FIRST`].
    #[inline(always)]
    pub const fn door(user: u16, SpaDoorId(number): SpaDoorId) -> Self {
        Self {
            number,
            user,
            is_port: 0,
            padding: 0,
        }
    }

    /// Returns a user, and the door that opens a port; see [`crate::layout::port_index`]. Packets of fwknop name ports.
    #[inline(always)]
    pub const fn port(user: u16, port_index: u32) -> Self {
        Self {
            number: port_index as u64,
            user,
            is_port: 1,
            padding: 0,
        }
    }
}

/// A door that a user may open.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct SpaMay {
    /// How long a grant lasts if the packet names no time, in milliseconds.
    pub open_for_ms: u64,
    /// The longest time that a packet can ask for, in milliseconds; not less than `open_for_ms`.
    pub open_for_max_ms: u64,
    /// The index of the door's entry in `DOORS`.
    pub entry: u16,
    /// The first TCP port that the door opens, for the answer; 0 if there is none.
    pub port: u16,
    /// Explicit padding.
    pub padding: u32,
}

/// The first 16 octets of the HMAC of a packet of fwknop.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct SpaTag(pub [u32; 4]);

/// A prefix of addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct SourcePrefix {
    /// An address in it.
    pub address: Address,
    /// The bits that all of its addresses share.
    pub mask: Address,
}

/// The keys and rights of a fwknop user.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct FwknopKey {
    /// Authenticates the packet.
    pub mac: hmac_sha256::HmacKey,
    /// When the user expires, in nanoseconds since 1970; `u64::MAX` is never.
    pub not_after_ns: u64,
    /// The user name that the packet must have, as [`crate::fwknop::text::username_hash`] returns it; 0 for any.
    pub username: u64,
    /// Decrypts the packet; not set if the entry is not used.
    pub passphrase: Passphrase,
    /// The number of the user, from 1.
    pub user: u16,
    /// [`Self::REQUIRE_SOURCE`].
    pub flags: u16,
    /// How many of `sources` are used; 0 admits every source.
    pub source_count: u32,
    /// From where packets may come.
    pub sources: [SourcePrefix; FWKNOP_SOURCES_MAX],
    /// Explicit padding.
    pub padding: u32,
}

impl SourcePrefix {
    /// Returns the prefix of an address with this length in bits, of the mapped form for IPv4: 96 to 128.
    pub fn new(address: Address, bits: u32) -> Self {
        let mask = u128::MAX.checked_shl(u128::BITS.saturating_sub(bits));
        let mask = Address::from_v6(mask.unwrap_or(0).to_be_bytes());
        Self { address, mask }
    }

    /// Returns whether an address is in it.
    #[inline(always)]
    pub fn contains(&self, address: Address) -> bool {
        let mut difference = 0;
        for ((one, other), mask) in self
            .address
            .words
            .iter()
            .zip(address.words)
            .zip(self.mask.words)
        {
            difference |= (one ^ other) & mask;
        }
        difference == 0
    }
}

impl FwknopKey {
    /// Returns whether a packet may come from an address.
    #[inline(always)]
    pub fn admits(&self, source: Address) -> bool {
        let count = self.source_count as usize;
        let mut sources = self.sources.iter().take(count);
        count == 0 || sources.any(|prefix| prefix.contains(source))
    }

    /// A packet must name the address that it asks for; `0.0.0.0` is refused.
    pub const REQUIRE_SOURCE: u16 = 1 << 0;
}

/// Words of a packet of the format `knock`: 72 octets. Random ones may follow.
pub const PACKET_WORDS: usize = 9;

/// The octets of a packet, as little-endian words in memory order.
pub type PacketWords = [u64; PACKET_WORDS];

/// The header of a packet in the clear.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Header {
    /// The client's key, and the gate that the packet passes.
    pub key: SpaKeyName,
    /// When the packet was made, in nanoseconds since 1970.
    pub stamp: u64,
}

pub(super) const MESSAGE_WORDS: usize = 12;

/// The memory for opening a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct OpenScratch {
    /// Header and hidden body, later the body in the clear, as big-endian words.
    pub(super) message: [u32; MESSAGE_WORDS],
    /// The state and the block of an HMAC.
    pub(super) work: Sha256Work,
}

/// Words of the answer to a packet of single packet authorization.
pub const ANSWER_WORDS: usize = 12;

/// The answer's words, in network order.
pub type AnswerWords = [u32; ANSWER_WORDS];

/// The memory in which a packet is judged, because the kernel's stack has no room for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SpaScratch {
    /// The packet, for the events and the grants that it causes.
    pub info: PacketInfo,
    /// The packet's octets, as they lie in memory.
    pub packet: PacketWords,
    /// The packet's header in the clear.
    pub header: Header,
    /// The memory for opening the packet.
    pub open: OpenScratch,
    /// The source of the packet, even if it asks for another address.
    pub seen: Address,
    /// The answer.
    pub answer: AnswerWords,
    /// For the answer: the first TCP port of the door; 0 for none.
    pub port: u32,
    /// For the answer: how long the door is open, in seconds.
    pub seconds: u32,
}
