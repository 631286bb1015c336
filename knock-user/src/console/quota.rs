//! Limits the lines about grants, commands and connections, to which the kernel's event limit does
//! not apply.
//!
//! A client that knows a sequence can open its door for any number of forged sources, with tens of
//! thousands of lines a second. So the number of lines of each kind is limited per second. Further
//! lines are counted, and one line a second and kind reports how many there were, of how many
//! sources and doors. Each door, and each network within a door, has only a share: a flood at one
//! door does not hide events of another.
//!
//! The limit affects lines only: grants, counters and commands are the same.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use crate::model::fair_shares;

/// The limit of lines of a kind in a second, for all doors together.
pub(super) const LINES_MAX: u32 = 256;
/// The limit of one door.
pub(super) const DOOR_LINES_MAX: u32 = 128;
/// The limit of one network within a door, an IPv4 /24 or an IPv6 /64.
pub(super) const NETWORK_LINES_MAX: u32 = 64;
/// How many sources and doors a summary distinguishes: the largest number of grants.
const COUNTED_MAX: usize = knock_common::layout::ALLOW_MAX as usize;

const WINDOW_NS: u64 = 1_000_000_000;

/// Counts lines that were written, and lines that were not, by kind.
#[derive(Debug, Default)]
pub(super) struct Quota {
    kinds: BTreeMap<&'static str, KindQuota>,
}

#[derive(Debug, Default)]
struct KindQuota {
    /// The second since boot to which `written` refers.
    window: u64,
    written: u32,
    doors: HashMap<String, u32>,
    networks: HashMap<(String, IpAddr), u32>,
    left_out: u64,
    left_out_sources: HashSet<IpAddr>,
    left_out_doors: HashSet<String>,
}

/// Lines of one kind that were not written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Omitted {
    /// The kind, as given to [`Quota::admits`].
    pub(super) kind: &'static str,
    /// How many lines.
    pub(super) lines: u64,
    /// About how many sources; [`COUNTED_MAX`] if there were more.
    pub(super) sources: usize,
    /// About how many doors; [`COUNTED_MAX`] if there were more.
    pub(super) doors: usize,
}

impl Quota {
    /// Returns whether a line may be written; otherwise it is counted.
    ///
    /// `at_ns` is the time of the event, in nanoseconds since boot. An event that is older than one
    /// that was written counts for the second of that one.
    pub(super) fn admits(
        &mut self,
        kind: &'static str,
        source: IpAddr,
        door: &str,
        at_ns: u64,
    ) -> bool {
        let lines = self.kinds.entry(kind).or_default();
        let window = at_ns / WINDOW_NS;
        if window > lines.window {
            lines.window = window;
            lines.written = 0;
            lines.doors.clear();
            lines.networks.clear();
        }
        let network = (door.to_owned(), fair_shares::network(source));
        let of_door = lines.doors.get(door).copied().unwrap_or(0);
        let of_network = lines.networks.get(&network).copied().unwrap_or(0);
        let has_room =
            lines.written < LINES_MAX && of_door < DOOR_LINES_MAX && of_network < NETWORK_LINES_MAX;
        if has_room {
            lines.written += 1;
            lines.doors.insert(door.to_owned(), of_door + 1);
            lines.networks.insert(network, of_network + 1);
        } else {
            lines.left_out = lines.left_out.saturating_add(1);
            if lines.left_out_sources.len() < COUNTED_MAX {
                lines.left_out_sources.insert(source);
            }
            if lines.left_out_doors.len() < COUNTED_MAX && !lines.left_out_doors.contains(door) {
                lines.left_out_doors.insert(door.to_owned());
            }
        }
        has_room
    }

    /// Takes the counts of omitted lines since the last call.
    pub(super) fn take_left_out(&mut self) -> Vec<Omitted> {
        let kinds = self.kinds.iter_mut();
        let left_out = kinds.filter(|(_, lines)| lines.left_out > 0);
        left_out
            .map(|(&kind, lines)| Omitted {
                kind,
                lines: std::mem::take(&mut lines.left_out),
                sources: std::mem::take(&mut lines.left_out_sources).len(),
                doors: std::mem::take(&mut lines.left_out_doors).len(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Returns a source by the numbers of its network and host.
    fn source(network: u32, host: u32) -> IpAddr {
        Ipv4Addr::from_bits(network << 8 | host).into()
    }

    #[test]
    fn lines_are_written_up_to_the_quota() {
        // Within a second: doors, networks of each, hosts of each; and the number of written lines.
        for (name, doors, networks, hosts, written) in [
            ("a network's share", 1, 1, 64, 64),
            ("more than a network's share", 1, 1, 65, 64),
            ("a door's share", 1, 128, 1, 128),
            ("more than a door's share", 1, 20_000, 1, 128),
            ("two doors", 2, 500, 1, 256),
            ("more than all", 9, 500, 2, 256),
        ] {
            let mut quota = Quota::default();
            let mut admitted = 0;
            for (door, network, host) in (0..doors).flat_map(|door| {
                let networks = 0..networks;
                networks.flat_map(move |network| (0..hosts).map(move |host| (door, network, host)))
            }) {
                let source = source(network, host);
                admitted += u32::from(quota.admits("opened", source, &door.to_string(), 5));
            }
            assert_eq!(admitted, written, "{name}");
            let left_out: u64 = quota.take_left_out().iter().map(|it| it.lines).sum();
            assert_eq!(
                left_out,
                u64::from(doors * networks * hosts - written),
                "{name}"
            );
        }
    }

    #[test]
    fn a_flood_does_not_hide_other_lines() {
        let mut quota = Quota::default();
        for network in 0..50_000 {
            quota.admits("opened", source(network, 1), "flooded", 5);
        }
        for (name, kind, door, at_ns, is_written) in [
            ("the flooded door", "opened", "flooded", 6, false),
            ("another door", "opened", "quiet", 6, true),
            ("another kind", "closed", "flooded", 6, true),
            ("the next second", "opened", "flooded", WINDOW_NS, true),
            ("news from before it", "opened", "flooded", 7, true),
        ] {
            let admitted = quota.admits(kind, source(60_000, 1), door, at_ns);
            assert_eq!(admitted, is_written, "{name}");
        }
    }

    #[test]
    fn omitted_lines_are_summed_up() {
        let mut quota = Quota::default();
        for network in 0..1_000 {
            for kind in ["opened", "closed"] {
                quota.admits(kind, source(network % 500, 1), "ssh", 5);
            }
        }
        let left_out = |kind| Omitted {
            kind,
            lines: 1_000 - u64::from(DOOR_LINES_MAX),
            sources: 500,
            doors: 1,
        };
        assert_eq!(
            quota.take_left_out(),
            [left_out("closed"), left_out("opened")]
        );
        assert_eq!(quota.take_left_out(), []);
    }
}
