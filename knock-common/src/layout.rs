//! The layout of the maps, which user space and the kernel side share.
//!
//! Each type is `#[repr(C)]`, without implicit padding and without pointers. A change of any type here, also of those
//! that are re-exported, raises [`VERSION`].

use bytemuck::{Pod, Zeroable};

use crate::{
    Address, grant_prefix::GrantPrefix, packet::Protocol, port_digits::PortDigits, secret::Secret,
};
pub use crate::{
    features::Features,
    port_rule::{Audience, FlagClass, PortKind, PortRule},
};

/// The version of the map layout.
pub const VERSION: u32 = 9;

/// Names of the maps, as in the object and in `bpftool map`.
pub const MAPS: &[&str] = &[
    "ALLOW",
    "ANSWER",
    "BLOCK",
    "BLOCKED",
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
    "FROM",
    "FWKNOP_KEYS",
    "FWKNOP_SCRATCH",
    "LOCKOUTS",
    "NODES",
    "OTP",
    "PORTS",
    "PRESENCE",
    "PROGRESS",
    "SCRATCH",
    "SPA_GATES",
    "SPA_KEYS",
    "SPA_LAST",
    "SPA_MAY",
    "SPA_OTHER",
    "SPA_SCRATCH",
    "SPA_SEEN",
    "TARGETS",
    "TRUST",
    "USED",
    "WALL_CLOCK",
];

/// Doors that a configuration may have. `DOORS` takes 72 bytes each: 0.7 MB.
pub const DOORS_MAX: u32 = 10_000;
/// Entries of `DOORS`: each one-time or time-based sequence has an entry of its own.
pub const DOOR_ENTRIES_MAX: u32 = 0xfffe;
/// Knocks that a door may have.
pub const KNOCKS_MAX: usize = 128;
/// Port groups that one door may open.
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
/// Targets: destination addresses that doors are limited to.
pub const TARGETS_MAX: u32 = 1024;
/// Prefixes of the allow list.
pub const TRUST_MAX: u32 = 4096;
/// Prefixes that a configuration blocks (grows when needed).
pub const BLOCK_MAX: u32 = 65_536;
/// Prefixes that commands block (grows when needed).
pub const BLOCKED_MAX: u32 = 65_536;
/// Prefixes from which doors can be used, of all doors together (grows when needed).
pub const FROM_MAX: u32 = 65_536;

/// Sources past their first knock (LRU) at most: 20-byte keys, about 6.3 MB.
pub const PROGRESS_MAX: u32 = 65_536;
/// Grants at most: about 6.3 MB.
pub const ALLOW_MAX: u32 = 65_536;
/// Established flows (LRU) at most: about 25 MB.
pub const FLOWS_MAX: u32 = 262_144;
/// Buckets of failed attempts at most, each of [`WAYS`] cells: 4 MiB.
pub const LOCKOUT_BUCKETS: u32 = 1 << 16;
/// Elements of `LOCKOUTS`: the last one holds the key that chooses buckets. It is drawn when the map is made
/// and never replaced, since cells can't be found with another key.
pub const LOCKOUTS_MAX: u32 = LOCKOUT_BUCKETS + 1;
/// Used sequences that user space has not moved to its replay file yet (grows when needed).
pub const USED_MAX: u32 = 65_536;
/// Buckets of the first-knock table at most.
pub const BUCKETS: u32 = 1 << 19;
/// Cells in a bucket: a cache line. `FIRST_KNOCKS` has 4 194 304 cells and takes 32 MiB.
pub const WAYS: usize = 8;
/// Slots of the claims: see [`crate::claim`]. `CLAIMS` takes 128 KiB.
pub const CLAIMS: u32 = 1 << 14;
/// Slots of the presence filter: 2 MiB.
pub const PRESENCE_SLOTS: u32 = 1 << 18;
/// Bytes of the ring buffer of events at most: a power of two.
pub const EVENTS_BYTES: u32 = 1 << 20;

/// Entries of the port table: two protocols. `PORTS` takes 1 MiB.
pub const PORT_RULES: u32 = 2 << 16;

/// Returns the index of a port's rule in the port table.
#[inline(always)]
pub const fn port_index(protocol: Protocol, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// Settings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Config {
    /// How long a flow without packets lasts, in milliseconds: by number of the [`Protocol`].
    pub flow_idle_ms: [u64; 2],
    /// How long a lockout lasts, and after how long a failed attempt is forgotten, in milliseconds.
    pub lockout_ms: u64,
    /// When the trial expires and everything passes, in milliseconds since boot; `u64::MAX` once it is confirmed. Only
    /// a program with [`Features::CONFIRM`] reads it.
    pub confirm_by_ms: u64,
    /// Until when this host counts as in sync with its group, in milliseconds since boot. Only a program with
    /// [`Features::FLEET`] reads it.
    pub fleet_until_ms: u64,
    /// The secret key of the first-knock table.
    pub cell_key: [u64; 12],
    /// The two secret keys of SYN cookies: see [`crate::cookie`].
    pub cookie_keys: [[u64; 2]; 2],
    /// How far the time of a SPA packet may differ from the wall clock, in nanoseconds.
    pub spa_window_ns: u64,
    /// Failed attempts that lock out.
    pub lockout_failures: u32,
    /// The longest time that an attempt can last, in ticks.
    pub attempt_max_ticks: u32,
    /// How often the table of first knocks is halved: it has [`BUCKETS`] buckets, shifted right by this.
    pub first_knocks_shift: u32,
    /// How often the table of failed attempts is halved: it has [`LOCKOUT_BUCKETS`] buckets, shifted right by this.
    pub lockouts_shift: u32,
    /// The flag classes that port rules name.
    pub flag_classes: [FlagClass; FLAG_CLASSES],
}

/// A knock as the automaton sees it: protocol and port in one word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct Symbol(u32);

impl Symbol {
    /// Returns the symbol of a knock on `port`.
    #[inline(always)]
    pub const fn new(protocol: Protocol, port: u16) -> Self {
        Self((protocol as u32) << 16 | port as u32)
    }

    /// Returns the protocol and port as a number below 2¹⁷.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The symbol of the edge from a node whose next knock depends on the source; no packet has it.
    pub const PER_SOURCE: Self = Self(1 << 31);
}

/// A node of the automaton: the first knocks of one or several sequences.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Node {
    /// The knock that leads here.
    pub symbol: Symbol,
    /// The longest `sequence_timeout` of the doors that can be reached from here, in ticks.
    pub sequence_timeout_ticks: u32,
    /// The `step_timeout` of the doors whose sequences lead through here, in ticks.
    pub step_timeout_ticks: u32,
    /// How many knocks lead here.
    pub depth: u8,
    /// The number of the next knock among those that depend on the source, from 1; 0 if it does not.
    pub per_source: u8,
    /// A door whose sequence leads through here, for events.
    pub via_door: u16,
    /// The sequences that end here, each as the index of its entry in `DOORS` plus one; 0 ends the
    /// list.
    pub completes: [u16; DOORS_PER_NODE],
    /// The sequence whose next knock depends on the source, as in `completes`.
    pub sequence: u16,
    /// Explicit padding.
    pub padding: u16,
    /// The node that a sequence leads to next, or 0. Its `symbol` is the knock that leads there; nodes that other
    /// knocks lead to are in `EDGES`, unless [`Self::ONLY`] is set.
    pub next: u32,
}

impl Node {
    /// The bit of `next` that is set if `EDGES` has no edge from this node.
    pub const ONLY: u32 = 1 << 31;

    /// Returns a node with another `next`: a node, or 0, and whether `EDGES` has further edges.
    #[must_use]
    pub const fn leading_to(self, next: u32, has_others: bool) -> Self {
        let only = if has_others { 0 } else { Self::ONLY };
        Self {
            next: next | only,
            ..self
        }
    }

    /// Returns the node that a sequence leads to next, or 0.
    #[inline(always)]
    pub const fn next_node(&self) -> u32 {
        self.next & ((1 << NODE_BITS) - 1)
    }

    /// Returns whether `EDGES` may have edges from this node.
    #[inline(always)]
    pub const fn has_others(&self) -> bool {
        self.next & Self::ONLY == 0
    }

    /// Returns whether a sequence ends here.
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

    /// Returns an edge that leaves a node.
    #[inline(always)]
    pub const fn from_node(node: u32, symbol: Symbol) -> Self {
        Self { from: node, symbol }
    }

    /// Returns an edge that leaves the root of the doors for one destination address.
    #[inline(always)]
    pub const fn from_root(target_id: u16, symbol: Symbol) -> Self {
        Self {
            from: Self::ROOT | target_id as u32,
            symbol,
        }
    }
}

/// The data of a door, or of one of a door's sequences, for the kernel side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct DoorEntry {
    /// How long a grant lasts, in milliseconds.
    pub open_for_ms: u64,
    /// Until when a sequence with a `sequence_id` can be started, in milliseconds since boot.
    pub good_until_ms: u64,
    /// The longest time from the first knock to the last, in ticks.
    pub sequence_timeout_ticks: u32,
    /// The target of its grants; 0 is any address.
    pub target_id: u16,
    /// 1 if it ends grants instead of giving them.
    pub closes: u16,
    /// How many of `port_groups` are used.
    pub port_group_count: u16,
    /// The number of the door in grants and events.
    pub number: u16,
    /// The number of a one-time or time-based sequence; 0 for one that can be repeated.
    pub sequence_id: u32,
    /// The domain of the replay cache: the same for all doors with the same secret or file.
    pub replay_domain: u32,
    /// The prefixes that its grants cover.
    pub grant_prefix: GrantPrefix,
    /// 1 if it can be used only from the prefixes that `FROM` has for it.
    pub is_limited: u16,
    /// The port that the reply names, if the door replies.
    pub reply: PortDigits,
    /// 1 if a group of hosts opens it, and it gives no grants while this host is cut off from the group.
    pub is_shared: u16,
    /// The port groups that it opens or closes.
    pub port_groups: [u16; PORT_GROUPS_PER_DOOR],
}

/// The input of a door's time-based knocks that depend on the source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct OtpEntry {
    /// The secret of both halves.
    pub secret: Secret,
    /// A bit per knock: 1 for UDP.
    pub udp: u32,
    /// The number that is added to each octet.
    pub base: u16,
    /// Explicit padding.
    pub padding: u16,
}

impl OtpEntry {
    /// Returns the protocol of a knock, counted from 0 within its half.
    #[inline(always)]
    pub const fn protocol(&self, knock: u8) -> Protocol {
        match self.udp >> (knock & 31) & 1 {
            0 => Protocol::Tcp,
            _ => Protocol::Udp,
        }
    }
}

/// The key of a prefix from which a door can be used: a number that has to be equal, and an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct FromKey {
    /// The number of the door, or [`Audience::SEVERAL_DOORS`].
    pub door: u32,
    /// An address, or the first of a prefix.
    pub source: Address,
}

impl FromKey {
    /// The bits of a key in front of the address.
    pub const DOOR_BITS: u32 = 32;
}

/// The key of a source's progress past its first knock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct ProgressKey {
    /// Source address.
    pub source: Address,
    /// Target of the destination address; 0 if it has none.
    pub target_id: u16,
    /// Explicit padding.
    pub padding: u16,
}

/// The key of a grant.
///
/// All grants for a port group cover prefixes of the same lengths, so the number of the group determines them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct GrantKey {
    /// Source address: the first of the prefix that the grant covers.
    pub source: Address,
    /// The port group that it opens.
    pub port_group: u16,
    /// The target; 0 is any address.
    pub target_id: u16,
}

/// The key of a used sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct UsedKey {
    /// The replay domain of its door.
    pub replay_domain: u32,
    /// Its number.
    pub sequence_id: u32,
}

/// The key of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Source port.
    pub source_port: u16,
    /// The protected port.
    pub port: u16,
    /// Target of the destination address; 0 if it has none.
    pub target_id: u16,
    /// TCP or UDP, as the number of [`Protocol`].
    pub protocol: u16,
}

impl FlowKey {
    /// Selects the idle time of this flow's protocol, in milliseconds.
    pub const fn idle_ms(&self, [tcp, udp]: [u64; 2]) -> u64 {
        if self.protocol == Protocol::Tcp as u16 {
            tcp
        } else {
            udp
        }
    }
}
