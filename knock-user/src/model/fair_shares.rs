//! Divides a table of fixed size fairly among doors, and among the networks of sources: the door or
//! network with the most entries loses entries first.
//!
//! An attacker who knows the sequence of one door can open it for as many addresses as they can
//! forge. That must not displace the entries of other doors and networks.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Returns the network whose share a source uses: an IPv4 /24 or an IPv6 /64.
pub fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// An entry that takes up room.
#[derive(Clone, Copy, Debug)]
pub struct OccupiedEntry<D, T> {
    /// Its door.
    pub door: D,
    /// Its source.
    pub source: IpAddr,
    /// Whether it is in use: within a door, these are removed last.
    pub is_in_use: bool,
    /// The lowest rank of the fullest share is removed first, such as the earliest end.
    pub rank: u64,
    /// The entry.
    pub what: T,
}

/// Chooses `count` entries to remove, each from the door with the most; within it, first those that
/// are not in use, from the network with the most of them.
pub fn to_go<D: Copy + Ord + Hash, T>(
    taken: impl IntoIterator<Item = OccupiedEntry<D, T>>,
    count: usize,
) -> Vec<T> {
    let mut doors: HashMap<D, BTreeMap<Share, Vec<(u64, T)>>> = HashMap::new();
    for OccupiedEntry {
        door,
        source,
        is_in_use,
        rank,
        what,
    } in taken
    {
        let shares = doors.entry(door).or_default();
        let share = shares.entry((Reverse(is_in_use), network(source)));
        share.or_default().push((rank, what));
    }
    let mut fullest_doors = BinaryHeap::new();
    let mut fullest_shares: HashMap<D, BinaryHeap<FullestShare>> = HashMap::new();
    for (door, shares) in &mut doors {
        let mut heap = BinaryHeap::new();
        let mut all = 0;
        for (&(in_use, network), share) in shares {
            // The next entry to remove is the last of the list.
            share.sort_by_key(|(rank, _)| Reverse(*rank));
            all += share.len();
            heap.push((in_use, share.len(), Reverse(first_rank(share)), network));
        }
        fullest_doors.push((all, *door));
        fullest_shares.insert(*door, heap);
    }
    let mut gone = Vec::new();
    while gone.len() < count
        && let Some((all, door)) = fullest_doors.pop()
    {
        let Some(heap) = fullest_shares.get_mut(&door) else {
            continue;
        };
        let Some((in_use, _, _, network)) = heap.pop() else {
            continue;
        };
        let shares = doors.get_mut(&door);
        let share = shares.and_then(|it| it.get_mut(&(in_use, network)));
        let Some(share) = share else { continue };
        gone.extend(share.pop().map(|(_, what)| what));
        if !share.is_empty() {
            heap.push((in_use, share.len(), Reverse(first_rank(share)), network));
        }
        fullest_doors.push((all.saturating_sub(1), door));
    }
    gone
}

/// The entries of a network for a door, by whether they are in use; unused ones come first in a
/// heap.
type Share = (Reverse<bool>, IpAddr);
/// A share, sorted so that the next entry to remove is the last.
type FullestShare = (Reverse<bool>, usize, Reverse<u64>, IpAddr);

fn first_rank<T>(share: &[(u64, T)]) -> u64 {
    share.last().map_or(u64::MAX, |(rank, _)| *rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearby_addresses_share_a_network() {
        for (a, b, same) in [
            ("203.0.113.1", "203.0.113.254", true),
            ("203.0.113.1", "203.0.112.1", false),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:203.0.113.1", "203.0.113.9", true),
        ] {
            let [a_network, b_network] = [a, b].map(|text| network(text.parse().unwrap()));
            assert_eq!(a_network == b_network, same, "{a} and {b}");
        }
    }

    #[test]
    fn the_fullest_share_makes_room() {
        let many = |door: char, networks: u8, hosts: u8| {
            (0..networks).flat_map(move |network| {
                (0..hosts).map(move |host| (door, format!("10.{network}.0.{host}"), 100))
            })
        };
        let one = |door: char, source: &str, rank: u64| (door, source.to_owned(), rank);
        type Row = (char, String, u64);
        let rows: Vec<(&str, Vec<Row>, usize, Vec<&str>)> = vec![
            ("nothing", vec![], 3, vec![]),
            (
                "the earliest end",
                vec![
                    one('a', "10.0.0.1", 9),
                    one('a', "10.0.0.2", 8),
                    one('a', "10.0.0.3", 10),
                ],
                2,
                vec!["10.0.0.2", "10.0.0.1"],
            ),
            (
                "the fullest network, not the earliest end",
                vec![
                    one('a', "10.0.0.1", 9),
                    one('a', "10.1.0.2", 1),
                    one('a', "10.0.0.3", 10),
                ],
                1,
                vec!["10.0.0.1"],
            ),
            (
                "the fullest door, not the fullest network",
                many('a', 3, 1)
                    .chain([one('b', "10.9.0.1", 1), one('b', "10.9.0.2", 1)])
                    .collect(),
                1,
                vec!["10.2.0.0"],
            ),
            (
                "what is not in use, not the fullest network",
                vec![
                    one('a', "10.0.0.200", 1),
                    one('a', "10.0.1.200", 5),
                    one('a', "10.0.1.201", 2),
                    one('a', "10.1.0.1", 9),
                    one('a', "10.2.0.1", 8),
                ],
                4,
                vec!["10.0.1.201", "10.2.0.1", "10.1.0.1", "10.0.0.200"],
            ),
            (
                "the fullest door, though all of it is in use",
                vec![
                    one('a', "10.0.0.200", 1),
                    one('a', "10.0.1.200", 2),
                    one('b', "10.2.0.1", 8),
                ],
                1,
                vec!["10.0.0.200"],
            ),
        ];
        for (name, taken, count, gone) in rows {
            let taken = taken.into_iter().map(|(door, source, rank)| OccupiedEntry {
                door,
                source: source.parse().unwrap(),
                is_in_use: source.ends_with(".200"),
                rank,
                what: source,
            });
            let found = to_go(taken, count);
            assert_eq!(found, gone, "{name}");
        }
    }

    /// One door is flooded from everywhere: the others lose nothing until it has no more entries
    /// than they.
    #[test]
    fn a_flooded_door_makes_room_for_all() {
        let forged = (0..60_000_u32).map(|number| ("flooded", Ipv4Addr::from_bits(number << 8)));
        let honest = (0..1_000_u32).map(|number| ("quiet", Ipv4Addr::from_bits(number)));
        let taken = forged.chain(honest).map(|(door, source)| OccupiedEntry {
            door,
            source: source.into(),
            is_in_use: false,
            rank: u64::from(source.to_bits()),
            what: door,
        });
        let gone = to_go(taken, 59_000);
        assert_eq!(gone.len(), 59_000);
        assert!(gone.iter().all(|door| *door == "flooded"));
    }
}
