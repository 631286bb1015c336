//! What the maps hold, without the maps.

use std::{collections::BTreeMap, net::IpAddr};

use knock_common::{
    Address,
    layout::{
        Active, Config, Door, EdgeKey, Node, PortRule, Symbol, TargetKey, TrustKey, port_index,
    },
    packet::Protocol,
};

use super::Held;
use crate::config::checked::Ports;

/// Where an edge begins.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EdgeFrom {
    /// At the root of a destination class.
    Root(u16),
    /// At a node, by its number in the bank.
    Node(u32),
}

/// A compiled configuration: the contents of one bank.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Flags of [`Active`], without the bank.
    pub flags: u32,
    /// The settings, but for `node_base` and `door_base`.
    pub config: Config,
    /// Ports that are something; the others are ordinary.
    pub ports: BTreeMap<(Protocol, u16), PortRule>,
    /// Nodes by number; number 0 is never read.
    pub nodes: Vec<Node>,
    /// Edges: from, knock, number of the node that they lead to.
    pub edges: Vec<(EdgeFrom, Symbol, u32)>,
    /// Doors by index.
    pub doors: Vec<Door>,
    /// The class of each destination address that doors are for.
    pub targets: Vec<(Address, u16)>,
    /// Trusted prefixes and their lengths in bits.
    pub trust: Vec<(Address, u32)>,
    /// The ports that each service stands for; none for a door that only runs commands.
    pub services: BTreeMap<u16, Vec<Ports>>,
    /// The destination address that each class stands for.
    pub classes: BTreeMap<u16, IpAddr>,
    /// Names of the doors by index.
    pub names: Vec<String>,
}

impl Tables {
    /// The word that puts the bank in force, with further flags of [`Active`].
    pub const fn active(&self, bank: u32, flags: u32) -> Active {
        Active::new(bank, self.flags | flags)
    }

    /// The settings, with where the bank's nodes and doors begin.
    pub const fn config(&self, node_base: u32, door_base: u32) -> Config {
        Config {
            node_base,
            door_base,
            ..self.config
        }
    }

    /// Entries of `PORTS`; those of the bank's other ports are zero.
    pub fn port_entries(&self, bank: u32) -> impl Iterator<Item = (u32, PortRule)> {
        self.ports
            .iter()
            .map(move |(&(protocol, port), &rule)| (port_index(bank, protocol, port), rule))
    }

    /// Entries of `EDGES`.
    pub fn edge_entries(&self, bank: u32) -> impl Iterator<Item = (EdgeKey, u32)> {
        self.edges.iter().map(move |&(from, symbol, to)| {
            let key = match from {
                EdgeFrom::Root(class) => EdgeKey::from_root(bank, class, symbol),
                EdgeFrom::Node(node) => EdgeKey::from_node(bank, node, symbol),
            };
            (key, to)
        })
    }

    /// Entries of `TARGETS`.
    pub fn target_entries(&self, bank: u32) -> impl Iterator<Item = (TargetKey, u16)> {
        self.targets
            .iter()
            .map(move |&(address, class)| (TargetKey { address, bank }, class))
    }

    /// Entries of `TRUST`: length in bits, from the bank on, and data.
    pub fn trust_entries(&self, bank: u32) -> impl Iterator<Item = (u32, TrustKey)> {
        self.trust
            .iter()
            .map(move |&(address, bits)| (TrustKey::BANK_BITS + bits, TrustKey::new(bank, address)))
    }

    /// What the ids in grants and flows made under this configuration stand for.
    pub fn held(&self) -> Held {
        Held {
            services: self.services.clone(),
            classes: self.classes.clone(),
        }
    }

    /// A world in memory under this configuration.
    #[cfg(any(test, feature = "sim"))]
    pub fn simulate(&self) -> knock_common::sim::Sim {
        knock_common::sim::Sim {
            active: self.active(0, 0),
            config: self.config,
            ports: self.port_entries(0).collect(),
            nodes: self.nodes.clone(),
            edges: self.edge_entries(0).collect(),
            doors: self.doors.clone(),
            targets: self.target_entries(0).collect(),
            trust: self.trust.clone(),
            ..knock_common::sim::Sim::default()
        }
    }
}
