//! Builds one automaton from all sequences (Aho and Corasick, 1975).
//!
//! The kernel side looks up one edge per knock; without an edge, the knock counts as a first knock. So
//! each node has the edges of its own sequences, and inherits those of the longest other beginning of
//! a sequence with which its path ends.

pub(super) mod builder;
mod conflicts;

use std::collections::BTreeMap;

use knock_common::{
    event::NO_DOOR,
    layout::{Node, Symbol},
};
use knock_sequence::Knock;

use super::edge::EdgeFrom;

/// The root of every class: its number is taken, so that 0 can mean "no node".
const ROOT: u32 = 0;

/// The edges of a node, in the order of their symbols.
type Edges = Vec<(Symbol, u32)>;

/// The automaton of a configuration.
pub(super) struct Automaton {
    /// The nodes by number; the first is the root, which the kernel side never reads.
    nodes: Vec<Node>,
    /// The edges that lead past a first knock, by number of the node that they leave.
    edges: Vec<Edges>,
    /// The first knocks of each target.
    firsts: BTreeMap<u16, Edges>,
    /// The parent of each node.
    ways: Vec<(EdgeFrom, Symbol)>,
}

/// A sequence that the automaton finds.
#[derive(Clone, Debug)]
pub(super) struct KnockPath {
    /// The index of its door in the configuration.
    pub(super) door: usize,
    /// Index of its entry in `DOORS`.
    pub(super) entry: u16,
    /// Its knocks.
    pub(super) symbols: Vec<Symbol>,
    /// How many of the last knocks depend on the source.
    pub(super) per_source: u8,
}

impl Automaton {
    /// Returns the node of a first knock for any target, or 0.
    pub(super) fn first(&self, knock: Knock) -> u32 {
        let firsts = self.firsts.get(&0).map_or(&[][..], Vec::as_slice);
        find(firsts, symbol(knock)).unwrap_or(ROOT)
    }

    /// Returns the parent of each node, by number; the root has none.
    pub(super) fn ways(&self) -> &[(EdgeFrom, Symbol)] {
        &self.ways
    }

    /// Returns the number of nodes that a first knock leads to; they have the lowest numbers.
    pub(super) fn first_count(&self) -> usize {
        self.firsts.values().map(Vec::len).sum()
    }

    /// Renumbers the nodes; each gets the number at its index.
    pub(super) fn renumber(&mut self, numbers: &[u32]) {
        let number = |node: u32| numbers.get(node as usize).copied().unwrap_or(ROOT);
        let count = numbers.iter().max().map_or(0, |&most| most as usize + 1);
        let mut nodes = vec![Node::default(); count];
        let mut edges = vec![Edges::new(); count];
        for (old, (node, mut own)) in (0..).zip(self.nodes.drain(..).zip(self.edges.drain(..))) {
            for (_, to) in &mut own {
                *to = number(*to);
            }
            let place = number(old) as usize;
            nodes[place] = node;
            edges[place] = own;
        }
        self.nodes = nodes;
        self.edges = edges;
        for (_, to) in self.firsts.values_mut().flatten() {
            *to = number(*to);
        }
    }

    /// Returns the first node that continues a sequence from a node with these edges, or 0.
    fn next(&self, from: u32, edges: &[(Symbol, u32)]) -> u32 {
        let depth = |node: u32| self.nodes.get(node as usize).map_or(0, |node| node.depth);
        let deeper = edges.iter().find(|(_, to)| depth(*to) > depth(from));
        deeper.map_or(ROOT, |(_, to)| *to)
    }

    /// Returns the tables of the maps: the nodes, each with the next one, and all other edges. They have numbers
    /// instead of indices for doors, and entries for sequences.
    pub(super) fn into_tables(
        mut self,
        numbers: &[u16],
        paths: &[KnockPath],
    ) -> (Vec<Node>, Vec<(EdgeFrom, Symbol, u32)>) {
        let number = |place: u16| numbers.get(usize::from(place)).copied();
        let entry = |path: u16| {
            paths
                .get(usize::from(path))
                .map_or(0, |path| path.entry + 1)
        };
        for node in &mut self.nodes {
            node.via_door = number(node.via_door).unwrap_or(NO_DOOR);
            let sequences = node.completes.iter_mut().chain([&mut node.sequence]);
            for one_based in sequences.filter(|one_based| **one_based > 0) {
                *one_based = entry(*one_based - 1);
            }
        }
        let mut edges = Vec::new();
        for (&target_id, firsts) in self.firsts.iter().filter(|(target_id, _)| **target_id != 0) {
            let from = EdgeFrom::Root(target_id);
            edges.extend(firsts.iter().map(|&(symbol, to)| (from, symbol, to)));
        }
        for (from, own) in (0..).zip(&self.edges) {
            let next = self.next(from, own);
            let others = own.iter().filter(|(_, to)| *to != next);
            let has_others = others.clone().next().is_some();
            edges.extend(others.map(|&(symbol, to)| (EdgeFrom::Node(from), symbol, to)));
            if let Some(node) = self.nodes.get_mut(from as usize) {
                *node = node.leading_to(next, has_others);
            }
        }
        (self.nodes, edges)
    }
}

pub(super) const fn symbol(knock: Knock) -> Symbol {
    Symbol::new(knock.protocol, knock.port)
}

fn find(edges: &[(Symbol, u32)], symbol: Symbol) -> Option<u32> {
    let place = edges.binary_search_by_key(&symbol, |&(symbol, _)| symbol);
    edges.get(place.ok()?).map(|&(_, to)| to)
}
