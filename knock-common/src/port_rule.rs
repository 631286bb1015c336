//! The rules of ports, as the port table has them.

use bytemuck::{Pod, Zeroable};

use crate::{
    grant_prefix::GrantPrefix,
    packet::flag,
    spa::port::{Otherwise, SpaPort},
};

/// The kind of a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortKind {
    /// Unused: in strict mode a new connection to it ends the source's attempt.
    Ordinary,
    /// Exempt: a packet to it is never a wrong knock.
    Exempt,
    /// Closed to sources without a grant.
    Protected,
    /// Part of a sequence.
    Knock,
    /// A decoy: a packet to it ends the source's attempt.
    Decoy,
    /// A UDP port that accepts single packet authorization; see [`crate::spa`].
    Spa,
}

/// An entry of the port table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct PortRule {
    kind: u8,
    /// Index of the flag class that makes a TCP packet to this port a knock, or [`Self::HANDSHAKE`];
    /// with [`Self::PASS_KNOCKS`] if knocks pass to the network stack. Of a port for single packet authorization, its
    /// [`SpaPort`] as bits.
    pub flag_class: u8,
    /// The port group, if the port is protected. Of a port whose knocks need a handshake, its [`Audience`] as a word.
    pub port_group: u16,
    /// The node that a first knock on this port leads to, or 0. Of a protected port, its [`GrantPrefix`] as a word.
    pub first: u32,
}

impl PortRule {
    /// An unused port.
    pub const ORDINARY: Self = Self {
        kind: 0,
        flag_class: 0,
        port_group: 0,
        first: 0,
    };
    /// An exempt port.
    pub const EXEMPT: Self = Self {
        kind: 1,
        flag_class: 0,
        port_group: 0,
        first: 0,
    };
    /// In place of a flag class: TCP knocks count once a handshake has proved their source.
    pub const HANDSHAKE: u8 = 0x80;
    /// Beside a flag class: knocks pass to the network stack.
    pub const PASS_KNOCKS: u8 = 0x40;
    /// A decoy.
    pub const DECOY: Self = Self {
        kind: 4,
        flag_class: FlagClass::SYN_INDEX,
        port_group: 0,
        first: 0,
    };

    /// Returns a port that is closed without a grant for `port_group`.
    pub const fn protected(port_group: u16) -> Self {
        Self {
            kind: 2,
            flag_class: 0,
            port_group,
            first: 0,
        }
    }

    /// Returns the same protected port, whose grants cover these prefixes.
    #[must_use]
    pub const fn with_grant_prefix(self, prefix: GrantPrefix) -> Self {
        Self {
            first: prefix.to_word(),
            ..self
        }
    }

    /// Returns the prefixes that grants for a protected port cover.
    #[inline(always)]
    pub const fn grant_prefix(self) -> GrantPrefix {
        GrantPrefix::from_word(self.first)
    }

    /// Returns a knock port; `first` is the node to which it leads as a first knock, or 0.
    pub const fn knock(flag_class: u8, first: u32) -> Self {
        Self {
            kind: 3,
            flag_class,
            port_group: 0,
            first,
        }
    }

    /// Returns a UDP port for single packet authorization.
    pub const fn spa(port: SpaPort) -> Self {
        Self {
            kind: 5,
            flag_class: port.to_bits(),
            port_group: match port.otherwise {
                Otherwise::Protected(port_group) => port_group,
                Otherwise::Drop | Otherwise::Pass => 0,
            },
            first: 0,
        }
    }

    /// Returns what a port for single packet authorization accepts, and what happens to other packets.
    #[inline(always)]
    pub const fn spa_port(self) -> SpaPort {
        SpaPort::from_bits(self.flag_class, self.port_group)
    }

    /// Returns the same port, whose TCP knocks count once a handshake has proved their source.
    #[must_use]
    pub const fn with_handshake(self) -> Self {
        Self {
            flag_class: Self::HANDSHAKE,
            ..self
        }
    }

    /// Returns the same port, which answers only these sources.
    #[must_use]
    pub const fn answering(self, audience: Audience) -> Self {
        Self {
            port_group: audience.0,
            ..self
        }
    }

    /// Returns the sources that a port whose knocks need a handshake answers.
    #[inline(always)]
    pub const fn audience(self) -> Audience {
        Audience(self.port_group)
    }

    /// Returns whether TCP knocks count once a handshake has proved their source.
    #[inline(always)]
    pub const fn needs_handshake(self) -> bool {
        self.flag_class & Self::HANDSHAKE != 0
    }

    /// Returns the same port, whose knocks pass to the network stack.
    #[must_use]
    pub const fn passing_knocks(self) -> Self {
        Self {
            flag_class: self.flag_class | Self::PASS_KNOCKS,
            ..self
        }
    }

    /// Returns whether knocks pass to the network stack.
    #[inline(always)]
    pub const fn passes_knocks(self) -> bool {
        self.flag_class & Self::PASS_KNOCKS != 0
    }

    /// Returns the kind of the port. Unknown numbers mean [`PortKind::Ordinary`].
    #[inline(always)]
    pub const fn kind(self) -> PortKind {
        match self.kind {
            1 => PortKind::Exempt,
            2 => PortKind::Protected,
            3 => PortKind::Knock,
            4 => PortKind::Decoy,
            5 => PortKind::Spa,
            _ => PortKind::Ordinary,
        }
    }
}

/// The sources that a port whose knocks need a handshake answers, as a word.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Audience(u16);

impl Audience {
    /// All sources.
    pub const EVERYONE: Self = Self(0);
    /// Those in the `from` of any door that has one and whose knocks need a handshake. `FROM` has them below the number
    /// [`Self::SEVERAL_DOORS`].
    pub const OF_SEVERAL: Self = Self::of_door(Self::SEVERAL_DOORS);
    /// In `FROM`, the number in place of that of a door. No door has it.
    pub const SEVERAL_DOORS: u16 = u16::MAX - 1;

    /// Returns those in the `from` of the door with this number, at most [`Self::SEVERAL_DOORS`].
    pub const fn of_door(number: u16) -> Self {
        Self(number.wrapping_add(1))
    }

    /// Returns the number below which `FROM` has the prefixes; `None` if the port answers all sources.
    #[inline(always)]
    pub const fn door(self) -> Option<u16> {
        match self.0 {
            0 => None,
            word => Some(word.wrapping_sub(1)),
        }
    }
}

/// TCP flags that a packet must have and must not have to be a knock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Pod, Zeroable)]
pub struct FlagClass {
    /// The flags that are compared.
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

    /// Returns whether a packet with these flags is a knock.
    #[inline(always)]
    pub const fn admits(self, flags: u8) -> bool {
        flags & self.mask == self.value
    }
}
