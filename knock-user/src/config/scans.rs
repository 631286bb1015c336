//! Finds sequences that a port scan in order would complete.

use std::{collections::BTreeMap, fmt};

use knock_common::{layout::FlagClass, packet::Protocol};
use knock_sequence::{Knock, PortSet, Ports};

use crate::model::settings::{Decoys, Door, Settings, Verify};

/// Returns whether all TCP packets that these flags admit ask for a connection. Only those are
/// wrong knocks on an unused port.
pub(super) fn opens(flags: FlagClass) -> bool {
    implies(flags, FlagClass::SYN)
}

/// Returns whether `wider` admits every packet that `flags` admits.
const fn implies(flags: FlagClass, wider: FlagClass) -> bool {
    flags.mask & wider.mask == wider.mask && flags.value & wider.mask == wider.value
}

/// The packets that a scan sends to each TCP port.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Touch {
    /// The flags of its packets.
    pub(super) flags: FlagClass,
    /// Whether it completes handshakes.
    pub(super) connects: bool,
}

impl Touch {
    /// Returns the packets that count as knocks of a door.
    pub(super) fn of(door: &Door) -> Self {
        Self {
            flags: door.tcp_flags,
            connects: door.verify == Verify::Handshake,
        }
    }
}

/// The ports that do not reset the attempt of a scanner in strict mode.
pub(super) struct Harmless<'a> {
    settings: &'a Settings,
    /// Ports that are never wrong knocks.
    always: Vec<Ports>,
    /// The other ports, by what the scan sends.
    by_touch: BTreeMap<Touch, PortSet>,
}

impl<'a> Harmless<'a> {
    pub(super) fn new<'p>(
        settings: &'a Settings,
        exempt: impl IntoIterator<Item = &'p Ports>,
    ) -> Self {
        let protected = settings.protected().ranges();
        let next_line = settings
            .next_line
            .map(|next_line| Ports::tcp(next_line.port()));
        let always = exempt
            .into_iter()
            .copied()
            .chain(protected)
            .chain(next_line);
        Self {
            settings,
            always: always.collect(),
            by_touch: BTreeMap::new(),
        }
    }

    /// Returns the direction of a scan that would complete the sequence.
    pub(super) fn walk(&mut self, knocks: &[Knock], touch: Touch) -> Option<Direction> {
        // Most sequences are in no order, so the set is built only if needed.
        Direction::of(knocks)?;
        let harmless = self.to(touch);
        Direction::find(knocks, |order, knocks| {
            order.walks_undisturbed(knocks, harmless)
        })
    }

    fn to(&mut self, touch: Touch) -> &PortSet {
        let Self {
            settings, always, ..
        } = self;
        let Touch { flags, connects } = touch;
        self.by_touch.entry(touch).or_insert_with(|| {
            let all = (!opens(flags)).then_some(Ports::all(Protocol::Tcp));
            // A packet whose flags do not match passes a knock port without effect. One that only
            // asks for a connection passes those that want a handshake.
            let unproved = |door: &&Door| door.verify == Verify::Handshake && !connects;
            let passed = settings
                .doors
                .iter()
                .filter(|door| !implies(flags, door.tcp_flags) || unproved(door))
                .flat_map(|door| &door.knock)
                .filter(|knock| knock.protocol == Protocol::Tcp);
            let passed = passed.copied().map(Ports::from);
            let decoys = match &settings.decoys {
                Decoys::Listed(listed) if settings.has_handshakes() && !connects => &listed[..],
                Decoys::Listed(_) | Decoys::Drawn { .. } => &[],
            };
            let decoys = decoys
                .iter()
                .filter(|ports| ports.protocol == Protocol::Tcp);
            let passed = passed.chain(decoys.copied());
            PortSet::new(always.iter().copied().chain(all).chain(passed))
        })
    }
}

/// Returns whether some scan would complete the sequence if no port in between reset the attempt.
pub(crate) fn is_scan(knocks: &[Knock]) -> bool {
    Direction::of(knocks).is_some()
}

/// The direction in which a scanner tries ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    /// Returns the direction of a scan that meets the knocks in their order, whatever is in
    /// between.
    pub(super) fn of(knocks: &[Knock]) -> Option<Self> {
        Self::find(knocks, Order::walks)
    }

    /// Returns the direction in which a scan meets the knocks; `is_met` decides for ascending
    /// scans.
    fn find(knocks: &[Knock], is_met: impl Fn(Order, &[Knock]) -> bool) -> Option<Self> {
        [Self::Up, Self::Down].into_iter().find(|direction| {
            let ascending = direction.as_ascending(knocks);
            Order::ALL.iter().any(|&order| is_met(order, &ascending))
        })
    }

    /// Returns the sequence that an ascending scan completes if one in this direction completes
    /// `knocks`.
    fn as_ascending(self, knocks: &[Knock]) -> Vec<Knock> {
        match self {
            Self::Up => knocks.to_vec(),
            Self::Down => knocks.iter().rev().copied().collect(),
        }
    }
}

/// Writes the effect of such a scan.
impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self {
            Self::Up => "ascending",
            Self::Down => "descending",
        };
        write!(
            f,
            "a port scan in {order} order would complete this sequence"
        )
    }
}

/// The order in which a scanner tries ports.
#[derive(Clone, Copy)]
enum Order {
    /// All of one protocol, then all of the other.
    ProtocolFirst(Protocol),
    /// Port by port, this protocol before the other.
    PortFirst(Protocol),
}

impl Order {
    const ALL: [Self; 4] = [
        Self::ProtocolFirst(Protocol::Tcp),
        Self::ProtocolFirst(Protocol::Udp),
        Self::PortFirst(Protocol::Tcp),
        Self::PortFirst(Protocol::Udp),
    ];

    /// Returns the position of a port in the scan.
    fn turn(self, knock: Knock) -> u32 {
        let port = u32::from(knock.port);
        match self {
            Self::ProtocolFirst(first) => u32::from(knock.protocol != first) << 16 | port,
            Self::PortFirst(first) => port << 1 | u32::from(knock.protocol != first),
        }
    }

    /// Returns whether the knocks come in this order.
    fn walks(self, knocks: &[Knock]) -> bool {
        knocks.is_sorted_by(|&a, &b| self.turn(a) < self.turn(b))
    }

    /// Returns whether they do, and all ports between them are harmless.
    fn walks_undisturbed(self, knocks: &[Knock], harmless: &PortSet) -> bool {
        self.walks(knocks)
            && knocks
                .iter()
                .zip(knocks.iter().skip(1))
                .all(|(&a, &b)| self.harmful_between(a, b, harmless) == 0)
    }

    /// Counts the ports that are not harmless and that the scan touches after `a` and before `b`.
    fn harmful_between(self, a: Knock, b: Knock, harmless: &PortSet) -> u32 {
        let harmful = |protocol, after: u16, before: u32| {
            let (first, end) = (u32::from(after) + 1, before);
            if first >= end {
                return 0;
            }
            let ports = Ports {
                protocol,
                first: after + 1,
                last: u16::try_from(end - 1).unwrap_or(u16::MAX),
            };
            end - first - harmless.count(ports)
        };
        let other = match a.protocol {
            Protocol::Tcp => Protocol::Udp,
            Protocol::Udp => Protocol::Tcp,
        };
        match self {
            Self::ProtocolFirst(_) if a.protocol == b.protocol => {
                harmful(a.protocol, a.port, b.port.into())
            }
            Self::ProtocolFirst(_) => {
                harmful(a.protocol, a.port, 1 << 16) + harmful(b.protocol, 0, b.port.into())
            }
            Self::PortFirst(first) => {
                // The ports of `a` and `b` themselves, in the other protocol.
                let at = |knock: Knock, is_between: bool| {
                    let twin = Knock {
                        protocol: if knock.protocol == a.protocol {
                            other
                        } else {
                            a.protocol
                        },
                        port: knock.port,
                    };
                    let is_end = twin == a || twin == b;
                    u32::from(is_between && !is_end && !harmless.has(twin.protocol, twin.port))
                };
                harmful(a.protocol, a.port, b.port.into())
                    + harmful(other, a.port, b.port.into())
                    + at(a, a.protocol == first)
                    + at(b, b.protocol != first)
            }
        }
    }
}
