//! The kinds of packets that are measured, and the headers around them.

use knock_common::Reason;
use knock_tests::frame::{ACK, Frame, SYN, eth};

use super::WARM;
use crate::{floor::FloorProgram, subject::PacketSeries};

/// The headers around a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wrap {
    V4,
    Vlan,
    V6,
}

impl Wrap {
    pub(super) const ALL: [Self; 3] = [Self::V4, Self::Vlan, Self::V6];

    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::Vlan => ", VLAN",
            Self::V6 => ", IPv6",
        }
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::Vlan => 1,
            Self::V6 => 2,
        }
    }

    pub(super) fn from(self, who: u8) -> Frame {
        let v4 = |frame: Frame| frame.ip4(&format!("203.0.113.{who}"), "192.0.2.2");
        match self {
            Self::V4 => v4(eth()),
            Self::Vlan => v4(eth().vlan(7)),
            Self::V6 => eth().ip6(&format!("2001:db8:5::{who}"), "2001:db8::2"),
        }
    }

    /// Returns the offset behind the source address.
    pub(super) const fn source_ends_at(self) -> u32 {
        match self {
            Self::V4 => 14 + 16,
            Self::Vlan => 14 + 4 + 16,
            Self::V6 => 14 + 24,
        }
    }
}

/// The last octet of a source without a grant.
pub(super) const WITHOUT_GRANT: u8 = 7;
/// The last octet of a source with a grant.
pub(super) const WITH_GRANT: u8 = 8;

/// A kind of packet.
pub(super) struct PacketCase {
    pub(super) what: &'static str,
    /// The program that does only what is needed for it.
    pub(super) floor: FloorProgram,
    pub(super) who: u8,
    pub(super) packet: fn(Frame) -> Frame,
    /// Packets that each source sends before; none for a packet that changes no state.
    pub(super) before: &'static [fn(Frame) -> Frame],
    pub(super) reasons: &'static [Reason],
}

pub(super) fn first(frame: Frame) -> Frame {
    frame.tcp(40_000, 7000, SYN)
}

pub(super) fn second(frame: Frame) -> Frame {
    frame.udp(40_000, 8000)
}

pub(super) fn third(frame: Frame) -> Frame {
    frame.tcp(40_000, 9000, SYN)
}

pub(super) fn decoy(frame: Frame) -> Frame {
    frame.tcp(40_000, 7777, SYN)
}

pub(super) fn other_port(frame: Frame) -> Frame {
    frame.tcp(40_000, 443, SYN)
}

pub(super) fn syn(frame: Frame) -> Frame {
    frame.tcp(40_000, 22, SYN)
}

pub(super) fn data(frame: Frame) -> Frame {
    frame.tcp(40_000, 22, ACK)
}

pub(super) const CASES: &[PacketCase] = &[
    PacketCase {
        what: "TCP data, unused port",
        floor: FloorProgram::Port,
        who: WITHOUT_GRANT,
        packet: |frame| frame.tcp(40_000, 443, ACK),
        before: &[],
        reasons: &[Reason::Ordinary],
    },
    PacketCase {
        what: "SYN, unused port",
        floor: FloorProgram::Filter,
        who: WITHOUT_GRANT,
        packet: other_port,
        before: &[],
        reasons: &[Reason::Ordinary],
    },
    PacketCase {
        what: "UDP, unused port",
        floor: FloorProgram::Filter,
        who: WITHOUT_GRANT,
        packet: |frame| frame.udp(40_000, 443),
        before: &[],
        reasons: &[Reason::Ordinary],
    },
    PacketCase {
        what: "SYN, protected port, no grant",
        floor: FloorProgram::Filter,
        who: WITHOUT_GRANT,
        packet: syn,
        before: &[],
        reasons: &[Reason::NoGrant],
    },
    PacketCase {
        what: "data, protected port, no grant",
        floor: FloorProgram::Filter,
        who: WITHOUT_GRANT,
        packet: data,
        before: &[],
        reasons: &[Reason::NoGrant],
    },
    PacketCase {
        what: "SYN, protected port, grant",
        floor: FloorProgram::Grant,
        who: WITH_GRANT,
        packet: syn,
        before: &[],
        reasons: &[Reason::Granted],
    },
    PacketCase {
        what: "data, protected port, established flow",
        floor: FloorProgram::Flow,
        who: WITH_GRANT,
        packet: data,
        before: &[],
        reasons: &[Reason::Flow],
    },
    PacketCase {
        what: "first knock",
        floor: FloorProgram::First,
        who: WITHOUT_GRANT,
        packet: first,
        before: &[other_port],
        reasons: &[Reason::FirstKnock],
    },
    PacketCase {
        what: "middle knock",
        floor: FloorProgram::Step,
        who: WITHOUT_GRANT,
        packet: second,
        before: &[other_port, first],
        reasons: &[Reason::NextKnock],
    },
    PacketCase {
        what: "last knock, opens",
        floor: FloorProgram::Open,
        who: WITHOUT_GRANT,
        packet: third,
        before: &[first, second],
        reasons: &[Reason::Opened],
    },
    PacketCase {
        what: "last knock, again",
        floor: FloorProgram::Again,
        who: WITHOUT_GRANT,
        packet: third,
        before: &[other_port, first, second],
        reasons: &[Reason::Refreshed, Reason::Opened],
    },
    PacketCase {
        what: "wrong knock, of an attempt",
        floor: FloorProgram::End,
        who: WITHOUT_GRANT,
        packet: third,
        before: &[other_port, first],
        reasons: &[Reason::WrongKnock],
    },
    PacketCase {
        what: "wrong knock, no attempt",
        floor: FloorProgram::Filter,
        who: WITHOUT_GRANT,
        packet: third,
        before: &[],
        reasons: &[Reason::OutOfSequence],
    },
    PacketCase {
        what: "duplicate knock",
        floor: FloorProgram::Duplicate,
        who: WITH_GRANT,
        packet: third,
        before: &[],
        reasons: &[Reason::Duplicate],
    },
    PacketCase {
        what: "decoy, of an attempt",
        floor: FloorProgram::End,
        who: WITHOUT_GRANT,
        packet: decoy,
        before: &[other_port, first],
        reasons: &[Reason::Decoy],
    },
    PacketCase {
        what: "decoy, no attempt",
        floor: FloorProgram::Filter,
        who: WITHOUT_GRANT,
        packet: decoy,
        before: &[],
        reasons: &[Reason::Decoy],
    },
];

impl PacketCase {
    pub(super) fn is_stateless(&self) -> bool {
        self.before.is_empty()
    }

    /// Returns whether it goes to the protected port, which `xdp-filter` denies.
    pub(super) fn is_for_ssh(&self) -> bool {
        matches!(
            self.reasons,
            [Reason::NoGrant] | [Reason::Granted] | [Reason::Flow]
        )
    }

    /// Returns whether a source can be in the case once only.
    pub(super) fn needs_new_sources(&self) -> bool {
        self.reasons == [Reason::Opened]
    }

    /// Returns the preparing packets and the packet, from each source of a group; groups share no
    /// source.
    pub(super) fn packets(&self, wrap: Wrap, group: u32) -> (Vec<PacketSeries>, PacketSeries) {
        let packet = |packet: fn(Frame) -> Frame| {
            let frame = packet(wrap.from(self.who)).bytes();
            let mut packet = PacketSeries::each(frame, wrap.source_ends_at(), WARM);
            packet.plan.first += group * WARM;
            packet
        };
        let before = self.before.iter().copied().map(packet).collect();
        (before, packet(self.packet))
    }
}
