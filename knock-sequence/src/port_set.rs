//! Sets of ports.

use crate::{Ports, Protocol};

const PORTS: usize = 1 << 16;

/// A set of ports of both protocols that is asked often: how many of a range are in it costs two
/// reads.
#[derive(Clone, Debug)]
pub struct PortSet {
    /// For each protocol, how many ports below each one are in the set.
    below: [Vec<u32>; 2],
}

impl PortSet {
    /// Returns the set of the ports in all of `ranges`.
    pub fn new(ranges: impl IntoIterator<Item = Ports>) -> Self {
        let mut depth = [vec![0_i64; PORTS + 1], vec![0_i64; PORTS + 1]];
        for Ports {
            protocol,
            first,
            last,
        } in ranges
        {
            let [tcp, udp] = &mut depth;
            let depth = match protocol {
                Protocol::Tcp => tcp,
                Protocol::Udp => udp,
            };
            depth[usize::from(first)] += 1;
            depth[usize::from(last) + 1] -= 1;
        }
        Self {
            below: depth.map(|steps| {
                let mut covered = 0;
                let mut count = 0;
                steps
                    .into_iter()
                    .map(|step| {
                        let before = count;
                        covered += step;
                        count += u32::from(covered > 0);
                        before
                    })
                    .collect()
            }),
        }
    }

    /// Returns how many ports of `ports` are in the set.
    pub fn count(&self, ports: Ports) -> u32 {
        let [tcp, udp] = &self.below;
        let below = match ports.protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
        };
        below[usize::from(ports.last) + 1] - below[usize::from(ports.first)]
    }

    /// Returns whether a port of `ports` is in the set.
    pub fn touches(&self, ports: Ports) -> bool {
        self.count(ports) > 0
    }

    /// Returns whether a port is in the set.
    pub fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.touches(Ports {
            protocol,
            first: port,
            last: port,
        })
    }

    /// Returns the set as ranges that don't touch, in the order of the ports.
    pub fn ranges(&self) -> Vec<Ports> {
        Self::ranges_of(|protocol, port| self.has(protocol, port))
    }

    /// Returns the ports of this set that are not in `other`, as ranges that don't touch.
    pub fn without(&self, other: &Self) -> Vec<Ports> {
        Self::ranges_of(|protocol, port| self.has(protocol, port) && !other.has(protocol, port))
    }

    /// Returns the ports that `is_in` accepts, as ranges that don't touch, in the order of the ports.
    fn ranges_of(is_in: impl Fn(Protocol, u16) -> bool) -> Vec<Ports> {
        let mut ranges: Vec<Ports> = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut open: Option<Ports> = None;
            for port in 0..=u16::MAX {
                if is_in(protocol, port) {
                    let first = open.map_or(port, |open| open.first);
                    open = Some(Ports {
                        protocol,
                        first,
                        last: port,
                    });
                } else {
                    ranges.extend(open.take());
                }
            }
            ranges.extend(open);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_count_once() {
        let ports = |text: &str| text.parse::<Ports>().unwrap();
        let texts = ["tcp/10-20", "tcp/15-30", "tcp/65535", "udp/1", "udp/2"];
        let set = PortSet::new(texts.map(ports));
        assert_eq!(set.count(Ports::all(Protocol::Tcp)), 22);
        assert_eq!(set.count(ports("tcp/30-40")), 1);
        assert!(!set.touches(ports("tcp/31-65534")));
        assert!(set.has(Protocol::Tcp, 65535));
        assert!(!set.has(Protocol::Udp, 65535));
        let merged: Vec<String> = set.ranges().iter().map(ToString::to_string).collect();
        assert_eq!(merged, ["tcp/10-30", "tcp/65535", "udp/1-2"]);
    }

    #[test]
    fn a_difference_consists_of_ports() {
        let set = |text: &str| PortSet::new(text.split_whitespace().map(|p| p.parse().unwrap()));
        for (name, of, without, expected) in [
            ("nothing", "", "", ""),
            ("the same", "tcp/22", "tcp/22", ""),
            ("a range that grows", "tcp/2222", "tcp/2222-2223", ""),
            (
                "a range that shrinks",
                "tcp/2222-2223",
                "tcp/2222",
                "tcp/2223",
            ),
            (
                "the middle",
                "tcp/1-65535",
                "tcp/22",
                "tcp/1-21 tcp/23-65535",
            ),
            ("another protocol", "tcp/53", "udp/53", "tcp/53"),
            ("the last port", "udp/65535", "", "udp/65535"),
        ] {
            let left = set(of).without(&set(without));
            let left: Vec<_> = left.iter().map(ToString::to_string).collect();
            assert_eq!(left.join(" "), expected, "{name}");
        }
    }
}
