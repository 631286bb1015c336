//! Finds the map entries to write when sequences change, in the order of writing.

use std::collections::HashMap;

use knock_common::layout::{DoorEntry, EdgeKey, Node, PortRule, port_index};

use super::tables::Tables;

/// Targets of references are written before the references, so that packets can be judged
/// meanwhile.
#[derive(Debug, Default)]
pub struct Difference {
    /// Elements of `DOORS`.
    pub doors: Vec<(u32, DoorEntry)>,
    /// Elements of `NODES` that nothing leads to yet.
    pub nodes: Vec<(u32, Node)>,
    /// Entries of `EDGES`.
    pub edges: Vec<(EdgeKey, u32)>,
    /// Other elements of `NODES`: what they lead to may be new, and what they led to may be in `EDGES` now.
    pub links: Vec<(u32, Node)>,
    /// Elements of `PORTS`.
    pub ports: Vec<(u32, PortRule)>,
    /// Keys of `EDGES` to remove, last of all.
    pub gone: Vec<EdgeKey>,
}

impl Difference {
    /// Compares the tables in the maps with new ones of the same configuration.
    pub fn new(old: &Tables, new: &Tables) -> Self {
        let doors =
            changed(&old.doors, &new.doors).filter(|(_, door)| *door != DoorEntry::default());
        let used = changed(&old.nodes, &new.nodes).filter(|(_, node)| node.depth != 0);
        let is_new = |index: u32| (old.nodes.get(index as usize)).is_none_or(|old| old.depth == 0);
        let (nodes, mut links): (Vec<_>, Vec<_>) = used.partition(|&(index, _)| is_new(index));
        // Attempts may still be at nodes that no sequence uses: they stay, and nothing leads to them or away from them.
        let is_unused =
            |index: u32| (new.nodes.get(index as usize)).is_none_or(|new| new.depth == 0);
        let unused = (0..)
            .zip(&old.nodes)
            .filter(|&(index, node)| node.depth != 0 && is_unused(index));
        links.extend(unused.map(|(index, node)| (index, node.leading_to(0, false))));
        let mut gone: HashMap<_, _> = old.edge_entries().collect();
        let edges = new.edge_entries();
        let edges = edges.filter(|(key, to)| gone.remove(key) != Some(*to));
        let edges = edges.collect();
        let free = old
            .ports
            .keys()
            .filter(|port| !new.ports.contains_key(port));
        let free = free.map(|port| (port, &PortRule::ORDINARY));
        let rules = new.ports.iter();
        let rules = rules.filter(|(port, rule)| old.ports.get(port) != Some(*rule));
        Self {
            doors: doors.collect(),
            nodes,
            edges,
            links,
            ports: rules
                .chain(free)
                .map(|(&(protocol, port), &rule)| (port_index(protocol, port), rule))
                .collect(),
            gone: gone.into_keys().collect(),
        }
    }
}

/// Returns the elements that differ, with their indices.
fn changed<'a, T: Copy + PartialEq>(
    old: &'a [T],
    new: &'a [T],
) -> impl Iterator<Item = (u32, T)> + 'a {
    let new = (0..).zip(new.iter().copied());
    new.filter(|&(index, element): &(u32, T)| old.get(index as usize) != Some(&element))
}
