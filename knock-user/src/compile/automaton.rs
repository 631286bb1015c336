//! All sequences as one automaton (Aho and Corasick, 1975).
//!
//! The kernel side looks up one edge for each knock, and takes a missing one for "as a first
//! knock". So each node has, besides the edges of its own sequences, those of the longest other
//! beginning that its path ends in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use knock_common::{
    event::NO_DOOR,
    layout::{DOORS_PER_NODE, FIRST_NODES_MAX, NODES_MAX, Node, Symbol},
};

use super::{Conflict, EdgeFrom, ticks};
use crate::config::{
    checked::{Door, Knock},
    value::spell,
};

/// The root of every class: its number is taken, so that 0 can mean "no node".
const ROOT: u32 = 0;

/// Edges that a configuration may have.
const EDGES_MAX: usize = NODES_MAX as usize;

/// Edges of a node, in the order of their symbols.
type Edges = Vec<(Symbol, u32)>;

/// The automaton of a configuration.
pub(super) struct Automaton {
    /// By number; the first is the root, which nothing reads.
    nodes: Vec<Node>,
    /// By number of the node that they leave: those that lead past a first knock.
    edges: Vec<Edges>,
    /// First knocks of each class.
    firsts: BTreeMap<u16, Edges>,
}

impl Automaton {
    /// Builds the automaton; `None` if that can't be done, which is a conflict.
    pub(super) fn new(
        doors: &[Door],
        classes: &BTreeMap<IpAddr, u16>,
        conflicts: &mut Vec<Conflict>,
    ) -> Option<Self> {
        let mut builder = Builder::new(doors);
        let everybody = [(None, 0)].into_iter();
        let targets = classes
            .iter()
            .map(|(target, class)| (Some(*target), *class));
        for (target, class) in everybody.chain(targets) {
            builder.plant(target, class);
        }
        builder.finish(conflicts)
    }

    /// The node that a knock leads to as a first knock for any destination, or 0.
    pub(super) fn first(&self, knock: Knock) -> u32 {
        let firsts = self.firsts.get(&0).map_or(&[][..], Vec::as_slice);
        find(firsts, symbol(knock)).unwrap_or(ROOT)
    }

    /// The tables of the maps; doors go by these numbers instead of their places.
    pub(super) fn into_tables(
        mut self,
        numbers: &[u16],
    ) -> (Vec<Node>, Vec<(EdgeFrom, Symbol, u32)>) {
        let number = |place: u16| numbers.get(usize::from(place)).copied();
        for node in &mut self.nodes {
            node.through = number(node.through).unwrap_or(NO_DOOR);
            for one_based in node.completes.iter_mut().filter(|door| **door > 0) {
                *one_based = number(*one_based - 1).map_or(0, |number| number + 1);
            }
        }
        let count = self.edges.iter().map(Vec::len).sum();
        let mut edges = Vec::with_capacity(count);
        for (&class, firsts) in self.firsts.iter().filter(|(class, _)| **class != 0) {
            let from = EdgeFrom::Root(class);
            edges.extend(firsts.iter().map(|&(symbol, to)| (from, symbol, to)));
        }
        for (from, own) in (0..).map(EdgeFrom::Node).zip(&self.edges) {
            edges.extend(own.iter().map(|&(symbol, to)| (from, symbol, to)));
        }
        (self.nodes, edges)
    }
}

const fn symbol(knock: Knock) -> Symbol {
    Symbol::new(knock.protocol, knock.port)
}

fn find(edges: &[(Symbol, u32)], symbol: Symbol) -> Option<u32> {
    let place = edges.binary_search_by_key(&symbol, |&(symbol, _)| symbol);
    edges.get(place.ok()?).map(|&(_, to)| to)
}

/// A node while the trees grow.
struct Stem {
    symbol: Symbol,
    depth: u8,
    class: u16,
    /// The door with the lowest index that goes through.
    through: usize,
    /// The longest `within` of the doors that go through, in ticks.
    within: u32,
    /// The doors that end here.
    ends: Vec<usize>,
    children: Edges,
}

struct Builder<'d> {
    doors: &'d [Door],
    stems: Vec<Stem>,
    firsts: BTreeMap<u16, Edges>,
    /// Pairs of doors whose `step_timeout` should be the same, the later one first, and after how
    /// many knocks.
    at_odds: BTreeMap<(usize, usize), Odds>,
    crowded: BTreeSet<Vec<usize>>,
}

/// How two doors with different `step_timeout` meet.
struct Odds {
    knocks: u8,
    overlap: bool,
}

impl<'d> Builder<'d> {
    fn new(doors: &'d [Door]) -> Self {
        Self {
            doors,
            stems: Vec::new(),
            firsts: BTreeMap::new(),
            at_odds: BTreeMap::new(),
            crowded: BTreeSet::new(),
        }
    }

    /// Grows the tree of a destination class. Sorted sequences share their beginnings with their
    /// neighbours, so the path to the last one is all that has to be remembered.
    fn plant(&mut self, target: Option<IpAddr>, class: u16) {
        let belongs = |door: &Door| door.target.is_none() || door.target == target;
        let doors = self.doors;
        let mut sorted: Vec<(usize, Vec<Symbol>)> = doors
            .iter()
            .enumerate()
            .filter(|(_, door)| belongs(door))
            .map(|(index, door)| (index, door.knock.iter().copied().map(symbol).collect()))
            .collect();
        sorted.sort_by(|(i, a), (j, b)| a.cmp(b).then(i.cmp(j)));
        let mut path: Vec<u32> = Vec::new();
        let mut firsts = Edges::new();
        for (index, sequence) in sorted {
            let Some(door) = doors.get(index) else {
                continue;
            };
            let shared = path
                .iter()
                .zip(&sequence)
                .take_while(|(node, symbol)| self.stems[**node as usize].symbol == **symbol)
                .count();
            path.truncate(shared);
            for &node in &path {
                self.pass(node, index, door);
            }
            for (&symbol, depth) in sequence.iter().zip(1..).skip(shared) {
                let node = self.stems.len() as u32;
                let siblings = match path.last() {
                    Some(&parent) => &mut self.stems[parent as usize].children,
                    None => &mut firsts,
                };
                siblings.push((symbol, node));
                self.stems.push(Stem {
                    symbol,
                    depth,
                    class,
                    through: index,
                    within: ticks(door.within),
                    ends: Vec::new(),
                    children: Edges::new(),
                });
                path.push(node);
            }
            if let Some(&node) = path.last() {
                self.stems[node as usize].ends.push(index);
            }
        }
        self.firsts.insert(class, firsts);
    }

    /// Takes a door through a node that others made.
    fn pass(&mut self, node: u32, index: usize, door: &Door) {
        let stem = &mut self.stems[node as usize];
        stem.within = stem.within.max(ticks(door.within));
        let (other, knocks) = (stem.through, stem.depth);
        stem.through = stem.through.min(index);
        self.compare(index, other, knocks, false);
    }

    fn compare(&mut self, a: usize, b: usize, knocks: u8, overlap: bool) {
        let step = |index: usize| self.doors.get(index).map(|door| door.step_timeout);
        if step(a) == step(b) {
            return;
        }
        let odds = self
            .at_odds
            .entry((a.max(b), a.min(b)))
            .or_insert(Odds { knocks, overlap });
        // A common beginning is easier to see than an overlap; the longest says most.
        if odds.overlap >= overlap {
            odds.overlap = overlap;
            odds.knocks = odds.knocks.max(knocks);
        }
    }

    fn finish(mut self, conflicts: &mut Vec<Conflict>) -> Option<Automaton> {
        if let Some(conflict) = self.too_large() {
            conflicts.push(conflict);
            return None;
        }
        self.number_by_depth();
        let stems = &self.stems;
        // Longest other beginning that each node's path ends in.
        let mut fails: Vec<u32> = vec![ROOT; stems.len()];
        let mut nodes: Vec<Node> = Vec::with_capacity(stems.len());
        let mut edges: Vec<Edges> = Vec::with_capacity(stems.len());
        let mut count = 0;
        let mut odds = Vec::new();
        let mut crowded = BTreeSet::new();
        for (number, stem) in (0..).zip(stems) {
            let fail = fails[number as usize];
            let inherited = edges.get(fail as usize).map_or(&[][..], Vec::as_slice);
            for &(symbol, child) in &stem.children {
                fails[child as usize] = self.longest_other(&fails, fail, symbol, stem.class);
            }
            count += stem.children.len() + inherited.len();
            if count > EDGES_MAX {
                conflicts.push(too_entangled(stem, self.doors));
                return None;
            }
            let own = merge(stem, inherited);
            let shorter = nodes.get(fail as usize).copied().unwrap_or_default();
            if shorter.depth >= 2 {
                odds.push((stem.through, usize::from(shorter.through), shorter.depth));
            }
            let (completes, all) = completes(&stem.ends, &shorter);
            if all.len() > DOORS_PER_NODE {
                crowded.insert(all);
            }
            let door = self.doors.get(stem.through);
            nodes.push(Node {
                symbol: stem.symbol,
                within: stem.within.max(shorter.within),
                step: door
                    .and_then(|door| door.step_timeout)
                    .map_or(u32::MAX, ticks),
                depth: stem.depth,
                through: u16::try_from(stem.through).unwrap_or(u16::MAX),
                completes,
                ..Node::default()
            });
            edges.push(own);
        }
        for (a, b, knocks) in odds {
            self.compare(a, b, knocks, true);
        }
        self.crowded = crowded;
        let found = self.conflicts();
        if !found.is_empty() {
            conflicts.extend(found);
            return None;
        }
        Some(Automaton {
            nodes,
            edges,
            firsts: self.firsts,
        })
    }

    /// The longest beginning that a path ends in when `symbol` follows one of which `shorter` is
    /// the longest other beginning.
    fn longest_other(&self, fails: &[u32], shorter: u32, symbol: Symbol, class: u16) -> u32 {
        let mut node = shorter;
        while node != ROOT {
            if let Some(next) = find(&self.stems[node as usize].children, symbol) {
                return next;
            }
            node = fails[node as usize];
        }
        let firsts = self.firsts.get(&class).map_or(&[][..], Vec::as_slice);
        find(firsts, symbol).unwrap_or(ROOT)
    }

    fn too_large(&self) -> Option<Conflict> {
        let firsts: usize = self.firsts.values().map(Vec::len).sum();
        if firsts > FIRST_NODES_MAX as usize {
            let reason = format!(
                "{firsts} different first knocks are too many: there may be {FIRST_NODES_MAX}, \
                 counted for each target; let doors share theirs, or give fewer targets"
            );
            return Some(Conflict::of_file("door", reason));
        }
        let most = NODES_MAX as usize - 1;
        if self.stems.len() > most {
            let reason = format!(
                "the sequences have {} different beginnings, and there may be {most}; doors \
                 without a target count once more for each target: shorten sequences, or give \
                 fewer targets",
                self.stems.len()
            );
            return Some(Conflict::of_file("door", reason));
        }
        None
    }

    /// Renumbers nodes so that those of first knocks come first, and every node after its fail.
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
            class: 0,
            through: 0,
            within: 0,
            ends: Vec::new(),
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

    fn conflicts(&self) -> Vec<Conflict> {
        let name = |index: usize| self.doors.get(index).map_or("", |door| &door.name);
        let step = |index: usize| {
            let step = self.doors.get(index).and_then(|door| door.step_timeout);
            step.map_or("none".to_owned(), spell)
        };
        let mut conflicts = Vec::new();
        for (&(later, earlier), odds) in &self.at_odds {
            let how = match (odds.overlap, odds.knocks) {
                (true, knocks) => format!("{knocks} knocks of one lie within the other"),
                (false, 1) => "they begin with the same knock".to_owned(),
                (false, knocks) => format!("they begin with the same {knocks} knocks"),
            };
            conflicts.push(Conflict::of_door(
                later,
                "step_timeout",
                format!(
                    "{}, but {} for door \"{}\": {how}, so a source there is in both; \
                     make both the same",
                    step(later),
                    step(earlier),
                    name(earlier)
                ),
            ));
        }
        for doors in &self.crowded {
            let names: Vec<String> = doors.iter().map(|&d| format!("\"{}\"", name(d))).collect();
            conflicts.push(Conflict::of_door(
                doors.iter().copied().max().unwrap_or(0),
                "knock",
                format!(
                    "its last knock would complete {} doors at once ({}), and there may be \
                     {DOORS_PER_NODE}: let fewer sequences end in one another",
                    doors.len(),
                    names.join(", ")
                ),
            ));
        }
        conflicts
    }
}

fn too_entangled(stem: &Stem, doors: &[Door]) -> Conflict {
    let name = doors.get(stem.through).map_or("", |door| &door.name);
    Conflict::of_door(
        stem.through,
        "knock",
        format!(
            "the sequences are too entangled: more than {EDGES_MAX} ways lead on from their \
             knocks. Door \"{name}\" has, behind its first knock, a knock that many doors begin \
             with; begin sequences with ports that are in no other place"
        ),
    )
}

/// Edges of a node: its own, and of those that it inherits the ones with other symbols.
///
/// It inherits none with the symbol that leads to it: a knock that comes twice, as a retransmitted
/// SYN does, changes nothing unless the sequence itself wants it twice.
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

/// The doors that a node completes: those that end there and those of the `shorter` one. First as
/// the map has them, then all as indices.
fn completes(ends: &[usize], shorter: &Node) -> ([u16; DOORS_PER_NODE], Vec<usize>) {
    let others = shorter.completes.iter().filter(|one_based| **one_based > 0);
    let others = others.map(|one_based| usize::from(*one_based) - 1);
    let all: Vec<usize> = ends.iter().copied().chain(others).collect();
    let mut completes = [0; DOORS_PER_NODE];
    for (slot, index) in completes.iter_mut().zip(&all) {
        *slot = u16::try_from(index + 1).unwrap_or(0);
    }
    (completes, all)
}
