//! Where edges of the automaton begin.

/// Where an edge begins.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EdgeFrom {
    /// At the root of a target.
    Root(u16),
    /// At a node, by its number.
    Node(u32),
}
