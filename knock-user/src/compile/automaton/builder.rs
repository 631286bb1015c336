//! Builds the tree of all sequences, and links each node with the longest other beginning.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use knock_common::layout::{DOORS_PER_NODE, NODES_MAX, Node, Symbol};

use super::{
    Automaton, Edges, KnockPath, ROOT,
    conflicts::{Ambiguous, TimeoutConflict, too_large},
    find,
};
use crate::{
    compile::{conflict::Conflict, edge::EdgeFrom, ticks::ticks},
    model::settings::Door,
};

/// Edges that a configuration may have.
const EDGES_MAX: usize = NODES_MAX as usize;

/// A node during construction.
struct Stem {
    symbol: Symbol,
    depth: u8,
    target_id: u16,
    /// The door with the lowest index whose sequence contains this node.
    via_door: usize,
    /// The longest `sequence_timeout` of the doors whose sequences contain this node, in ticks.
    sequence_timeout_ticks: u32,
    /// The paths that end here.
    ends: Vec<usize>,
    /// The path whose next knock depends on the source, and the position of that knock, from 1.
    per_source: Option<(usize, u8)>,
    children: Edges,
}

/// Builds the automaton; `None` after a conflict, which is reported.
pub(in crate::compile) fn build(
    doors: &[Door],
    paths: &[KnockPath],
    target_ids: &BTreeMap<IpAddr, u16>,
    conflicts: &mut Vec<Conflict>,
) -> Option<Automaton> {
    let mut builder = Builder::new(doors, paths);
    let everybody = [(None, 0)].into_iter();
    let targets = target_ids
        .iter()
        .map(|(target, target_id)| (Some(*target), *target_id));
    for (target, target_id) in everybody.chain(targets) {
        builder.plant(target, target_id);
    }
    builder.finish(conflicts)
}

struct Builder<'d> {
    doors: &'d [Door],
    paths: &'d [KnockPath],
    stems: Vec<Stem>,
    firsts: BTreeMap<u16, Edges>,
    ambiguous: Ambiguous,
}

impl<'d> Builder<'d> {
    fn new(doors: &'d [Door], paths: &'d [KnockPath]) -> Self {
        Self {
            doors,
            paths,
            stems: Vec::new(),
            firsts: BTreeMap::new(),
            ambiguous: Ambiguous::default(),
        }
    }

    /// Builds the tree of a target. Sorted sequences share their beginnings with their neighbours,
    /// so only the path to the last one is kept.
    fn plant(&mut self, target: Option<IpAddr>, target_id: u16) {
        let belongs = |door: &Door| door.target.is_none() || door.target == target;
        let (doors, paths) = (self.doors, self.paths);
        let mut sorted: Vec<(usize, &KnockPath, &Door)> = paths
            .iter()
            .enumerate()
            .filter_map(|(path_index, path)| Some((path_index, path, doors.get(path.door)?)))
            .filter(|(_, _, door)| belongs(door))
            .collect();
        sorted.sort_by(|(i, a, _), (j, b, _)| a.symbols.cmp(&b.symbols).then(i.cmp(j)));
        let mut path: Vec<u32> = Vec::new();
        let mut firsts = Edges::new();
        for (path_index, sequence, door) in sorted {
            let index = sequence.door;
            let shared = path
                .iter()
                .zip(&sequence.symbols)
                .take_while(|(node, symbol)| self.stems[**node as usize].symbol == **symbol)
                .count();
            path.truncate(shared);
            for &node in &path {
                self.pass(node, index, door);
            }
            for (&symbol, depth) in sequence.symbols.iter().zip(1..).skip(shared) {
                let node = self.stems.len() as u32;
                let siblings = match path.last() {
                    Some(&parent) => &mut self.stems[parent as usize].children,
                    None => &mut firsts,
                };
                siblings.push((symbol, node));
                self.stems.push(Stem {
                    symbol,
                    depth,
                    target_id,
                    via_door: index,
                    sequence_timeout_ticks: ticks(door.sequence_timeout),
                    ends: Vec::new(),
                    per_source: None,
                    children: Edges::new(),
                });
                path.push(node);
            }
            if let Some(&node) = path.last() {
                self.stems[node as usize].ends.push(path_index);
            }
            self.bind(path_index, sequence, &path);
        }
        self.firsts.insert(target_id, firsts);
    }

    /// Marks the node of a path after which the next knock depends on the source.
    fn bind(&mut self, path_index: usize, sequence: &KnockPath, along: &[u32]) {
        let fixed = along.len() - usize::from(sequence.per_source);
        let binding = along.iter().skip(fixed.saturating_sub(1));
        for (&node, knock) in binding.zip(1..=sequence.per_source) {
            let per_source = &mut self.stems[node as usize].per_source;
            match *per_source {
                None => *per_source = Some((path_index, knock)),
                Some((other, _)) => {
                    let other = self.paths.get(other).map_or(0, |path| path.door);
                    self.ambiguous
                        .mixed
                        .insert((sequence.door.max(other), sequence.door.min(other)));
                }
            }
        }
    }

    /// Adds a door to an existing node.
    fn pass(&mut self, node: u32, index: usize, door: &Door) {
        let stem = &mut self.stems[node as usize];
        stem.sequence_timeout_ticks = stem
            .sequence_timeout_ticks
            .max(ticks(door.sequence_timeout));
        let (other, knocks) = (stem.via_door, stem.depth);
        stem.via_door = stem.via_door.min(index);
        self.compare(index, other, knocks, false);
    }

    fn compare(&mut self, a: usize, b: usize, knocks: u8, overlap: bool) {
        let step = |index: usize| self.doors.get(index).map(|door| door.step_timeout);
        if step(a) == step(b) {
            return;
        }
        let odds = self
            .ambiguous
            .at_odds
            .entry((a.max(b), a.min(b)))
            .or_insert(TimeoutConflict { knocks, overlap });
        // A common beginning is easier to see in a message than an overlap, and the longest shows
        // most.
        if odds.overlap >= overlap {
            odds.overlap = overlap;
            odds.knocks = odds.knocks.max(knocks);
        }
    }

    fn finish(mut self, conflicts: &mut Vec<Conflict>) -> Option<Automaton> {
        let first_knocks = self.firsts.values().map(Vec::len).sum();
        if let Some(conflict) = too_large(first_knocks, self.stems.len()) {
            conflicts.push(conflict);
            return None;
        }
        self.number_by_depth();
        let stems = &self.stems;
        // For each node: the longest other beginning with which its path ends.
        let mut fails: Vec<u32> = vec![ROOT; stems.len()];
        let mut nodes: Vec<Node> = Vec::with_capacity(stems.len());
        let mut edges: Vec<Edges> = Vec::with_capacity(stems.len());
        let mut ways = vec![(EdgeFrom::Root(0), Symbol::default()); stems.len()];
        for (&target_id, firsts) in &self.firsts {
            for &(symbol, node) in firsts {
                ways[node as usize] = (EdgeFrom::Root(target_id), symbol);
            }
        }
        let mut count = 0;
        let mut odds = Vec::new();
        let mut crowded = BTreeSet::new();
        for (number, stem) in (0..).zip(stems) {
            let fail = fails[number as usize];
            let inherited = edges.get(fail as usize).map_or(&[][..], Vec::as_slice);
            for &(symbol, child) in &stem.children {
                ways[child as usize] = (EdgeFrom::Node(number), symbol);
                fails[child as usize] = self.longest_other(&fails, fail, symbol, stem.target_id);
            }
            count += stem.children.len() + inherited.len();
            if count > EDGES_MAX {
                conflicts.push(too_entangled(stem, self.doors));
                return None;
            }
            let own = merge(stem, inherited);
            let shorter = nodes.get(fail as usize).copied().unwrap_or_default();
            if shorter.depth >= 2 {
                odds.push((stem.via_door, usize::from(shorter.via_door), shorter.depth));
            }
            let (completes, all) = completes(&stem.ends, &shorter);
            if all.len() > DOORS_PER_NODE {
                let door = |path: &usize| self.paths.get(*path).map_or(0, |path| path.door);
                crowded.insert(all.iter().map(door).collect());
            }
            let (sequence, per_source) = match stem.per_source {
                Some((path, knock)) => (one_based(path), knock),
                None => (shorter.sequence, shorter.per_source),
            };
            let door = self.doors.get(stem.via_door);
            nodes.push(Node {
                symbol: stem.symbol,
                sequence_timeout_ticks: stem
                    .sequence_timeout_ticks
                    .max(shorter.sequence_timeout_ticks),
                step_timeout_ticks: door
                    .and_then(|door| door.step_timeout)
                    .map_or(u32::MAX, ticks),
                depth: stem.depth,
                via_door: u16::try_from(stem.via_door).unwrap_or(u16::MAX),
                completes,
                per_source,
                sequence,
                ..Node::default()
            });
            edges.push(own);
        }
        for (a, b, knocks) in odds {
            self.compare(a, b, knocks, true);
        }
        self.ambiguous.crowded = crowded;
        let found = self.ambiguous.conflicts(self.doors);
        if !found.is_empty() {
            conflicts.extend(found);
            return None;
        }
        Some(Automaton {
            nodes,
            edges,
            firsts: self.firsts,
            ways,
        })
    }

    /// Returns the longest beginning with which a path ends after `symbol`, where `shorter` is that
    /// of the path before.
    fn longest_other(&self, fails: &[u32], shorter: u32, symbol: Symbol, target_id: u16) -> u32 {
        // The symbol for source-bound knocks stands for a different knock on each path.
        if symbol == Symbol::PER_SOURCE {
            return ROOT;
        }
        let mut node = shorter;
        while node != ROOT {
            if let Some(next) = find(&self.stems[node as usize].children, symbol) {
                return next;
            }
            node = fails[node as usize];
        }
        let firsts = self.firsts.get(&target_id).map_or(&[][..], Vec::as_slice);
        find(firsts, symbol).unwrap_or(ROOT)
    }

    /// Renumbers nodes so that those of first knocks come first, and each follows the node of its
    /// longest other beginning.
    fn number_by_depth(&mut self) {
        let mut order: Vec<u32> = (0..self.stems.len() as u32).collect();
        order.sort_by_key(|&node| self.stems[node as usize].depth);
        let mut numbers = vec![ROOT; order.len()];
        for (number, &node) in (1..).zip(&order) {
            numbers[node as usize] = number;
        }
        let renumber = |edges: &mut Edges| {
            for (_, to) in edges {
                *to = numbers[*to as usize];
            }
        };
        for firsts in self.firsts.values_mut() {
            renumber(firsts);
        }
        let mut stems: Vec<Option<Stem>> = self.stems.drain(..).map(Some).collect();
        let root = Stem {
            symbol: Symbol::default(),
            depth: 0,
            target_id: 0,
            via_door: 0,
            sequence_timeout_ticks: 0,
            ends: Vec::new(),
            per_source: None,
            children: Edges::new(),
        };
        self.stems.push(root);
        for node in order {
            let stem = stems.get_mut(node as usize).and_then(Option::take);
            self.stems.extend(stem.map(|mut stem| {
                renumber(&mut stem.children);
                stem
            }));
        }
    }
}

fn too_entangled(stem: &Stem, doors: &[Door]) -> Conflict {
    let name = doors.get(stem.via_door).map_or("", |door| &door.name);
    Conflict::of_door(
        stem.via_door,
        "knock",
        format!(
            "the sequences need more than {EDGES_MAX} transitions between knocks, because they \
             share too many of them: door \"{name}\" has, after its first knock, a knock with \
             which many doors begin; begin sequences with ports that no door uses later on"
        ),
    )
}

/// Returns the edges of a node: its own, and the inherited ones with other symbols.
///
/// It inherits none with the symbol that leads to it: a knock that arrives twice, as a
/// retransmitted SYN does, changes nothing unless the sequence contains it twice.
fn merge(stem: &Stem, inherited: &[(Symbol, u32)]) -> Edges {
    let own = &stem.children;
    let mut merged = own.clone();
    merged.extend(
        inherited
            .iter()
            .filter(|&&(symbol, _)| symbol != stem.symbol && find(own, symbol).is_none()),
    );
    merged.sort_unstable();
    merged
}

fn one_based(path: usize) -> u16 {
    u16::try_from(path + 1).unwrap_or(0)
}

/// Returns the paths that a node completes: those that end there and those of the `shorter` one.
/// First as the map has them, then all as indices.
fn completes(ends: &[usize], shorter: &Node) -> ([u16; DOORS_PER_NODE], Vec<usize>) {
    let others = shorter.completes.iter().filter(|one_based| **one_based > 0);
    let others = others.map(|one_based| usize::from(*one_based) - 1);
    let all: Vec<usize> = ends.iter().copied().chain(others).collect();
    let mut completes = [0; DOORS_PER_NODE];
    for (slot, index) in completes.iter_mut().zip(&all) {
        *slot = one_based(*index);
    }
    (completes, all)
}
