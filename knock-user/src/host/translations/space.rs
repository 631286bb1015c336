//! Sets of ports that a rule matches, as ranges.

use knock_common::packet::Protocol;

use knock_sequence::Ports;

/// The largest port.
const LAST: u16 = u16::MAX;

/// Ports of TCP and UDP, as sorted ranges that do not touch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Space {
    tcp: Vec<(u16, u16)>,
    udp: Vec<(u16, u16)>,
}

impl Space {
    /// Returns all ports.
    pub(super) fn all() -> Self {
        Self {
            tcp: vec![(0, LAST)],
            udp: vec![(0, LAST)],
        }
    }

    /// Returns no port.
    pub(super) const fn none() -> Self {
        Self {
            tcp: Vec::new(),
            udp: Vec::new(),
        }
    }

    /// Returns these ports of both protocols.
    pub(super) fn of_ports(ranges: Vec<(u16, u16)>) -> Self {
        let ranges = merged(ranges);
        Self {
            tcp: ranges.clone(),
            udp: ranges,
        }
    }

    /// Returns all ports of these protocols, by number.
    pub(super) fn of_protocols(numbers: &[(u16, u16)]) -> Self {
        let ports_if = |number: u16| {
            let mut numbers = numbers.iter();
            match numbers.any(|&(first, last)| (first..=last).contains(&number)) {
                true => vec![(0, LAST)],
                false => Vec::new(),
            }
        };
        Self {
            tcp: ports_if(6),
            udp: ports_if(17),
        }
    }

    /// Returns all ports of one protocol.
    pub(super) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::of_protocols(&[(6, 6)]),
            Protocol::Udp => Self::of_protocols(&[(17, 17)]),
        }
    }

    /// Returns the intersection.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            tcp: common(&self.tcp, &other.tcp),
            udp: common(&self.udp, &other.udp),
        }
    }

    /// Returns the union.
    pub(super) fn or(mut self, other: Self) -> Self {
        self.tcp.extend(other.tcp);
        self.udp.extend(other.udp);
        Self {
            tcp: merged(self.tcp),
            udp: merged(self.udp),
        }
    }

    /// Returns the complement.
    pub(super) fn inverted(&self) -> Self {
        Self {
            tcp: inverted(&self.tcp),
            udp: inverted(&self.udp),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty()
    }

    /// Returns whether no port was restricted: each protocol has all of its ports, or none.
    pub(super) fn is_unbounded(&self) -> bool {
        let is_whole = |ranges: &Vec<_>| ranges.is_empty() || *ranges == [(0, LAST)];
        is_whole(&self.tcp) && is_whole(&self.udp)
    }

    /// Returns the ranges, without port 0.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Ports> + '_ {
        let of = |protocol, ranges: &[(u16, u16)]| {
            let ranges = ranges.iter().filter(|(_, last)| *last > 0);
            let ranges = ranges.map(move |&(first, last)| Ports {
                protocol,
                first: first.max(1),
                last,
            });
            ranges.collect::<Vec<_>>()
        };
        let tcp = of(Protocol::Tcp, &self.tcp);
        tcp.into_iter().chain(of(Protocol::Udp, &self.udp))
    }
}

fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

fn common(one: &[(u16, u16)], other: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let pairs = one
        .iter()
        .flat_map(|a| other.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
    merged(pairs.collect())
}

fn inverted(ranges: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut free = Vec::new();
    let mut next = Some(0_u16);
    for &(first, last) in ranges {
        if let Some(next) = next
            && next < first
        {
            free.push((next, first - 1));
        }
        next = last.checked_add(1);
    }
    free.extend(next.map(|next| (next, LAST)));
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_ports_are_joined_inverted_and_intersected() {
        let ports = |ranges: &[(u16, u16)]| Space::of_ports(ranges.to_vec());
        assert_eq!(
            ports(&[(80, 90), (85, 100), (101, 110)]),
            ports(&[(80, 110)])
        );
        assert_eq!(
            ports(&[(22, 22)]).inverted(),
            ports(&[(0, 21), (23, LAST)]),
            "all but one"
        );
        assert_eq!(Space::all().inverted(), Space::none());
        assert_eq!(Space::none().inverted(), Space::all());
        assert_eq!(
            ports(&[(10, 20), (30, 40)]).and(&ports(&[(15, 35)])),
            ports(&[(15, 20), (30, 35)])
        );
        assert!(Space::of(Protocol::Tcp).is_unbounded());
        assert!(!ports(&[(1, 2)]).is_unbounded());
        let tcp = Space::of(Protocol::Tcp).and(&ports(&[(0, 22)]));
        let shown: Vec<_> = tcp.ranges().map(|ports| ports.to_string()).collect();
        assert_eq!(shown, ["tcp/1-22"]);
    }
}
