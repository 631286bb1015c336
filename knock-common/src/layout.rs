//! The shapes of the maps: what user space writes and the kernel side reads, and the other way.
//!
//! Everything is `#[repr(C)]`, without padding and without pointers. A change of any shape here is
//! a change of [`VERSION`].

use bytemuck::{Pod, Zeroable};

use crate::{
    Address,
    answer::PortDigits,
    otp::Secret,
    packet::{Protocol, flag},
};

/// The version of the map layout.
pub const VERSION: u32 = 5;

/// Names of the maps, as in the object and in `bpftool map`.
pub const MAPS: &[&str] = &[
    "ALLOW",
    "ANSWER",
    "CLAIMS",
    "CLOCK",
    "CONFIG",
    "COUNTERS",
    "DOORS",
    "EDGES",
    "EVENTS",
    "EVENT_LIMITS",
    "FIRST_KNOCKS",
    "FLOWS",
    "FRAMES_SEEN",
    "LOCKOUTS",
    "NODES",
    "OTP",
    "PORTS",
    "PRESENCE",
    "PROGRESS",
    "SCRATCH",
    "TARGETS",
    "TRUST",
    "USED",
];

/// Doors that a configuration may have. `DOORS` takes 72 bytes each: 0.7 MB.
pub const DOORS_MAX: u32 = 10_000;
/// Entries of `DOORS`: a sequence that may be used once has one of its own.
pub const DOOR_ENTRIES_MAX: u32 = 0xfffe;
/// Knocks that a door may have.
pub const KNOCKS_MAX: usize = 128;
/// Services that one door may open: groups of ports that the same doors open.
pub const PORT_GROUPS_PER_DOOR: usize = 16;
/// Doors that one knock may complete, where a sequence ends another.
pub const DOORS_PER_NODE: usize = 4;
/// Different `tcp_flags` that a configuration may use.
pub const FLAG_CLASSES: usize = 16;
/// Nodes of the automaton: their numbers take [`NODE_BITS`] bits of the progress word.
pub const NODES_MAX: u32 = 1 << NODE_BITS;
/// Bits of a node's number.
pub const NODE_BITS: u32 = 21;
/// Nodes at the end of a first knock: their numbers take 16 bits of a first-knock cell.
pub const FIRST_NODES_MAX: u32 = 0xffff;
/// Different destination addresses that doors may be for.
pub const TARGETS_MAX: u32 = 1024;
/// Trusted prefixes.
pub const TRUST_MAX: u32 = 4096;

/// Sources past their first knock (LRU): 20-byte keys, about 6.3 MB.
pub const PROGRESS_MAX: u32 = 65_536;
/// Grants: about 6.3 MB.
pub const ALLOW_MAX: u32 = 65_536;
/// Established flows (LRU): about 25 MB.
pub const FLOWS_MAX: u32 = 262_144;
/// Buckets of failed attempts, each of [`WAYS`] cells: 4 MiB.
pub const LOCKOUT_BUCKETS: u32 = 1 << 16;
/// Elements of `LOCKOUTS`: the last one holds the key that chooses buckets. It is drawn with the map
/// and kept as long as it, since the cells mean nothing without it.
pub const LOCKOUTS_MAX: u32 = LOCKOUT_BUCKETS + 1;
/// Sequences that were used and that user space has not put away yet (grown when needed).
pub const USED_MAX: u32 = 65_536;
/// Buckets of the first-knock table.
pub const BUCKETS: u32 = 1 << 19;
/// Cells in a bucket: a cache line. `FIRST_KNOCKS` has 4 194 304 cells and takes 32 MiB.
pub const WAYS: usize = 8;
/// Slots of the claims: see [`crate::claim`]. `CLAIMS` takes 128 KiB.
pub const CLAIMS: u32 = 1 << 14;
/// Slots of the hint table: 2 MiB.
pub const PRESENCE_SLOTS: u32 = 1 << 18;
/// Bytes of the ring buffer of events.
pub const EVENTS_BYTES: u32 = 1 << 20;

/// Entries of the port table: two protocols. `PORTS` takes 1 MiB.
pub const PORT_RULES: u32 = 2 << 16;

/// Where a port's rule is in the port table.
#[inline(always)]
pub const fn port_index(protocol: Protocol, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// What a configuration uses.
///
/// The word is fixed when the program is loaded, so the verifier takes out what is not used.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Features(pub u32);

impl Features {
    /// A new connection to a port that is nothing resets the source's progress.
    pub const STRICT: Self = Self(1 << 0);
    /// Connections outlive the grant that let them in.
    pub const KEEP: Self = Self(1 << 1);
    /// There are trusted prefixes.
    pub const TRUST: Self = Self(1 << 2);
    /// There are doors for one destination address.
    pub const TARGETS: Self = Self(1 << 3);
    /// Failed attempts lock out.
    pub const LOCKOUT: Self = Self(1 << 4);
    /// Failed attempts of anybody lock out everybody.
    pub const LOCKOUT_GLOBAL: Self = Self(1 << 5);
    /// Nothing is dropped.
    pub const DRY_RUN: Self = Self(1 << 6);
    /// The configuration awaits a confirmation, and everything passes if it does not come in time.
    pub const CONFIRM: Self = Self(1 << 7);
    /// There are sequences that depend on who knocks.
    pub const PER_SOURCE: Self = Self(1 << 8);
    /// Some packets are answered: handshakes, or the last knock of a door.
    pub const ANSWERS: Self = Self(1 << 9);
    /// The program tells what it does, for `-v`.
    pub const LOG: Self = Self(1 << 10);

    /// There are doors whose knocks go on to the network stack.
    pub const KNOCK_PASS: Self = Self(1 << 11);
    /// The loopback interface is protected, where packets come from loopback addresses.
    pub const LOOPBACK: Self = Self(1 << 12);

    /// Whether all of `features` are used.
    #[inline(always)]
    pub const fn has(self, features: Self) -> bool {
        self.0 & features.0 == features.0
    }

    /// These and others.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// What a port is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortKind {
    /// Nothing of ours; in strict mode a new connection to it resets the source's progress.
    Ordinary,
    /// Nothing of ours, and never a wrong knock.
    Exempt,
    /// Closed without a grant.
    Protected,
    /// Part of a sequence.
    Knock,
    /// Looks like part of a sequence, and resets.
    Decoy,
}

/// An entry of the port table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct PortRule {
    kind: u8,
    /// Index of the flag class that makes a TCP packet to this port a knock, or [`Self::HANDSHAKE`];
    /// with [`Self::PASS_KNOCKS`] if knocks go on to the network stack.
    pub flag_class: u8,
    /// The group of ports that this one belongs to, if it is protected.
    pub port_group: u16,
    /// The node that a first knock on this port leads to, or 0.
    pub first: u32,
}

impl PortRule {
    /// A port that is nothing.
    pub const ORDINARY: Self = Self {
        kind: 0,
        flag_class: 0,
        port_group: 0,
        first: 0,
    };
    /// A port that is nothing and is never a wrong knock.
    pub const EXEMPT: Self = Self {
        kind: 1,
        flag_class: 0,
        port_group: 0,
        first: 0,
    };
    /// In place of a flag class: TCP knocks here count when a handshake has proved their source.
    pub const HANDSHAKE: u8 = 0x80;
    /// Beside a flag class: knocks go on to the network stack.
    pub const PASS_KNOCKS: u8 = 0x40;
    /// A port that resets whoever touches it.
    pub const DECOY: Self = Self {
        kind: 4,
        flag_class: FlagClass::SYN_INDEX,
        port_group: 0,
        first: 0,
    };

    /// A port that is closed without a grant for `port_group`.
    pub const fn protected(port_group: u16) -> Self {
        Self {
            kind: 2,
            flag_class: 0,
            port_group,
            first: 0,
        }
    }

    /// A port in a sequence; `first` is the node that it leads to as a first knock, or 0.
    pub const fn knock(flag_class: u8, first: u32) -> Self {
        Self {
            kind: 3,
            flag_class,
            port_group: 0,
            first,
        }
    }

    /// The same port, where TCP knocks count when a handshake has proved their source.
    #[must_use]
    pub const fn with_handshake(self) -> Self {
        Self {
            flag_class: Self::HANDSHAKE,
            ..self
        }
    }

    /// Whether TCP knocks count when a handshake has proved their source.
    #[inline(always)]
    pub const fn needs_handshake(self) -> bool {
        self.flag_class & Self::HANDSHAKE != 0
    }

    /// The same port, where knocks go on to the network stack.
    #[must_use]
    pub const fn passing_knocks(self) -> Self {
        Self {
            flag_class: self.flag_class | Self::PASS_KNOCKS,
            ..self
        }
    }

    /// Whether knocks go on to the network stack.
    #[inline(always)]
    pub const fn passes_knocks(self) -> bool {
        self.flag_class & Self::PASS_KNOCKS != 0
    }

    /// What the port is. Numbers that were never written mean [`PortKind::Ordinary`].
    #[inline(always)]
    pub const fn kind(self) -> PortKind {
        match self.kind {
            1 => PortKind::Exempt,
            2 => PortKind::Protected,
            3 => PortKind::Knock,
            4 => PortKind::Decoy,
            _ => PortKind::Ordinary,
        }
    }
}

/// TCP flags that a packet must have and must not have to be a knock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct FlagClass {
    /// The flags that are looked at.
    pub mask: u8,
    /// Their values.
    pub value: u8,
}

impl FlagClass {
    /// Index of [`FlagClass::SYN`] among a configuration's classes: decoys use it.
    pub const SYN_INDEX: u8 = 0;
    /// `syn,!ack`: a packet that asks for a connection.
    pub const SYN: Self = Self {
        mask: flag::SYN | flag::ACK,
        value: flag::SYN,
    };

    /// Whether a packet with these flags is a knock.
    #[inline(always)]
    pub const fn admits(self, flags: u8) -> bool {
        flags & self.mask == self.value
    }
}

/// Settings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Config {
    /// How long a flow without packets lasts, in milliseconds: by number of the [`Protocol`].
    pub flow_idle_ms: [u64; 2],
    /// How long a lockout lasts, and after how long a failed attempt is forgotten, in milliseconds.
    pub lockout_ms: u64,
    /// When everything begins to pass because no confirmation came, in milliseconds since boot;
    /// `u64::MAX` once it is confirmed. Only a program with [`Features::CONFIRM`] reads it.
    pub confirm_by_ms: u64,
    /// The secret key of the first-knock table.
    pub cell_key: [u64; 12],
    /// The secret keys of handshakes, which take turns: see [`crate::cookie`].
    pub cookie_keys: [[u64; 2]; 2],
    /// Failed attempts that lock out.
    pub lockout_failures: u32,
    /// The longest that any attempt lives, in ticks.
    pub attempt_max_ticks: u32,
    /// The flag classes that port rules name.
    pub flag_classes: [FlagClass; FLAG_CLASSES],
}

/// A knock as the automaton sees it: protocol and port in one word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct Symbol(u32);

impl Symbol {
    /// The symbol of a knock on `port`.
    #[inline(always)]
    pub const fn new(protocol: Protocol, port: u16) -> Self {
        Self((protocol as u32) << 16 | port as u32)
    }

    /// The number that protocol and port are, below 2¹⁷.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// What leads on from a node whose next knock depends on who knocks: no packet has it.
    pub const PER_SOURCE: Self = Self(1 << 31);
}

/// A node of the automaton: a beginning of some sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Node {
    /// The knock that leads here.
    pub symbol: Symbol,
    /// The longest `sequence_timeout` of the doors that can still be reached from here, in ticks.
    pub sequence_timeout_ticks: u32,
    /// The `step_timeout` of the doors that go through here, in ticks.
    pub step_timeout_ticks: u32,
    /// How many knocks lead here.
    pub depth: u8,
    /// If the next knock depends on who knocks: its place among those that do, from 1; else 0.
    pub per_source: u8,
    /// A door that goes through here, for the console.
    pub via_door: u16,
    /// The sequences that end here, each as the index of its entry in `DOORS` plus one; 0 ends the
    /// list.
    pub completes: [u16; DOORS_PER_NODE],
    /// The sequence that is gone on with if the next knock depends on who knocks, as in `completes`.
    pub sequence: u16,
    /// Explicit padding.
    pub padding: u16,
}

impl Node {
    /// Whether a sequence ends here.
    #[inline(always)]
    pub const fn ends_sequence(&self) -> bool {
        let [first, ..] = self.completes;
        first != 0
    }
}

/// The key of an edge: the node it leaves, and the knock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct EdgeKey {
    /// Node or root that the edge leaves.
    from: u32,
    /// The knock.
    symbol: Symbol,
}

impl EdgeKey {
    const ROOT: u32 = 1 << 30;

    /// An edge that leaves a node.
    #[inline(always)]
    pub const fn from_node(node: u32, symbol: Symbol) -> Self {
        Self { from: node, symbol }
    }

    /// An edge that leaves the root of the doors for one destination address.
    #[inline(always)]
    pub const fn from_root(target_id: u16, symbol: Symbol) -> Self {
        Self {
            from: Self::ROOT | target_id as u32,
            symbol,
        }
    }
}

/// A door, or one of the sequences of a door that has several, as far as the kernel side needs it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Door {
    /// How long a grant lasts, in milliseconds.
    pub open_for_ms: u64,
    /// Until when a sequence with a mark may be begun, in milliseconds since boot.
    pub good_until_ms: u64,
    /// First to last knock, in ticks.
    pub sequence_timeout_ticks: u32,
    /// The destination class that its grants are for; 0 is any.
    pub target_id: u16,
    /// Whether it ends grants instead of giving them.
    pub closes: u16,
    /// How many of `port_groups` count.
    pub port_group_count: u16,
    /// The number of the door: grants and events have it.
    pub number: u16,
    /// Which sequence of the door this is, if it is good once; else 0.
    pub sequence_id: u32,
    /// Under which number it is noted that the sequence was used: the same for all doors that have
    /// the same secret or file.
    pub replay_domain: u32,
    /// Explicit padding.
    pub padding2: u32,
    /// The port that a knocker is told, if one is.
    pub reply: PortDigits,
    /// Explicit padding.
    pub padding: u16,
    /// The services that it opens or closes.
    pub port_groups: [u16; PORT_GROUPS_PER_DOOR],
}

/// What the knocks of a door are made of that depend on who knocks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Otp {
    /// The secret of both halves.
    pub secret: Secret,
    /// The knocks that are UDP, as bits.
    pub udp: u32,
    /// What is added to each octet.
    pub base: u16,
    /// Explicit padding.
    pub padding: u16,
}

impl Otp {
    /// The protocol of a knock, counted from 0 within its half.
    #[inline(always)]
    pub const fn protocol(&self, knock: u8) -> Protocol {
        match self.udp >> (knock & 31) & 1 {
            0 => Protocol::Tcp,
            _ => Protocol::Udp,
        }
    }
}

/// The key of a source's progress past its first knock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct ProgressKey {
    /// Who knocks.
    pub source: Address,
    /// Class of the destination address.
    pub target_id: u16,
    /// Explicit padding.
    pub padding: u16,
}

/// The key of a grant.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct GrantKey {
    /// Who may pass.
    pub source: Address,
    /// The ports that the grant is for.
    pub port_group: u16,
    /// Class of the destination address; 0 is any.
    pub target_id: u16,
}

/// The key of a sequence that was used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct UsedKey {
    /// The memory of its door.
    pub replay_domain: u32,
    /// Its mark.
    pub sequence_id: u32,
}

/// The key of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct FlowKey {
    /// The other end.
    pub source: Address,
    /// Its port.
    pub source_port: u16,
    /// The protected port.
    pub port: u16,
    /// Class of the destination address.
    pub target_id: u16,
    /// TCP or UDP, as the number of [`Protocol`].
    pub protocol: u16,
}

impl FlowKey {
    /// The time of those by protocol that is for this flow.
    pub const fn idle_ms(&self, [tcp, udp]: [u64; 2]) -> u64 {
        if self.protocol == Protocol::Tcp as u16 {
            tcp
        } else {
            udp
        }
    }
}
