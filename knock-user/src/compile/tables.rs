//! The contents of the maps, as plain data.

use std::collections::{BTreeMap, HashMap};

use knock_common::{
    Address,
    layout::{
        Config, DoorEntry, EdgeKey, Features, FlowKey, GrantKey, Node, OtpEntry, PortKind,
        PortRule, Symbol, port_index,
    },
    packet::Protocol,
    spa::layout::{FwknopKey, Gate, SpaKey, SpaKeyName, SpaMay, SpaMayKey},
};
use knock_sequence::Ports;

use super::{
    edge::EdgeFrom,
    id_pool::{Capacity, IdPool},
    stable_ids::StableIds,
};
use crate::{
    host::tracked::Packets,
    model::settings::{AcceptedSequence, Sequences, Settings},
};

/// A compiled configuration.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The features that the configuration uses.
    pub features: Features,
    /// The settings.
    pub config: Config,
    /// The rules of ports; unlisted ports are unused.
    pub ports: BTreeMap<(Protocol, u16), PortRule>,
    /// Decoys that were drawn: TCP ports.
    pub drawn: Vec<u16>,
    /// Nodes by number; number 0 is never read.
    pub nodes: Vec<Node>,
    /// Edges that are not in the nodes themselves: origin, knock, number of the node that they lead to.
    pub edges: Vec<(EdgeFrom, Symbol, u32)>,
    /// Doors by number, then the entries of further sequences; unused numbers have an empty entry.
    pub doors: Vec<DoorEntry>,
    /// The inputs of knocks that depend on the source, by number of the door.
    pub otp: Vec<(u16, OtpEntry)>,
    /// The id of each target.
    pub targets: Vec<(Address, u16)>,
    /// Trusted prefixes and their lengths in bits.
    pub trust: Vec<(Address, u32)>,
    /// Blocked prefixes and their lengths in bits.
    pub block: Vec<(Address, u32)>,
    /// The prefixes from which doors can be used: number of the door, address, length in bits.
    pub from: Vec<(u16, Address, u32)>,
    /// The tables of single packet authorization.
    pub spa: SpaTables,
    /// The ports of each port group; none for a door that only runs commands.
    pub port_groups: BTreeMap<u16, Vec<Ports>>,
    /// The names of the doors by number; empty for unused numbers.
    pub names: Vec<String>,
    /// The numbers of doors, port groups and targets.
    pub numbers: StableIds,
    /// The capacity that the maps need.
    pub room: Capacity,
    /// Numbers that stay unchanged while sequences change, if any do.
    pub(super) id_pool: Option<IdPool>,
}

/// The contents of the maps of single packet authorization.
#[derive(Clone, Debug, Default)]
pub struct SpaTables {
    /// Gates: that of the host key, and that of the old one if there is one.
    pub gates: Vec<Gate>,
    /// The keys of clients.
    pub keys: Vec<(SpaKeyName, SpaKey)>,
    /// The doors of users.
    pub may: Vec<(SpaMayKey, SpaMay)>,
    /// The fwknop users.
    pub fwknop_keys: Vec<FwknopKey>,
}

impl Tables {
    /// Returns the entries of `PORTS`; those of unused ports are zero.
    pub fn port_entries(&self) -> impl Iterator<Item = (u32, PortRule)> {
        self.ports
            .iter()
            .map(|(&(protocol, port), &rule)| (port_index(protocol, port), rule))
    }

    /// Entries of `EDGES`.
    pub fn edge_entries(&self) -> impl Iterator<Item = (EdgeKey, u32)> {
        self.edges.iter().map(|&(from, symbol, to)| {
            let key = match from {
                EdgeFrom::Root(target_id) => EdgeKey::from_root(target_id, symbol),
                EdgeFrom::Node(node) => EdgeKey::from_node(node, symbol),
            };
            (key, to)
        })
    }

    /// Returns the same tables with other expiry times of sequences.
    #[must_use]
    pub fn renewed(&self, settings: &Settings, sequences: &Sequences) -> Self {
        let mut renewed = self.clone();
        let until: HashMap<_, u64> = sequences
            .iter()
            .filter_map(|(&index, sequences)| Some((settings.doors.get(index)?, sequences)))
            .filter_map(|(door, all)| Some((*self.numbers.doors.get(&door.name)?, all)))
            .flat_map(|(number, all)| {
                let until = move |sequence: &AcceptedSequence| {
                    ((number, sequence.sequence_id), sequence.good_until_ms)
                };
                all.iter().map(until)
            })
            .collect();
        for entry in renewed
            .doors
            .iter_mut()
            .filter(|entry| entry.sequence_id != 0)
        {
            if let Some(&until_ms) = until.get(&(entry.number, entry.sequence_id)) {
                entry.good_until_ms = until_ms;
            }
        }
        renewed
    }

    /// Returns the flow of packets to a protected port; none if their port is not protected.
    pub fn flow_of(&self, packets: &Packets) -> Option<FlowKey> {
        let Packets {
            protocol,
            source,
            target,
        } = *packets;
        let rule = self.ports.get(&(protocol, target.port()))?;
        let local_address = Address::from(target.ip());
        let target_id = self
            .targets
            .iter()
            .find_map(|&(target, target_id)| (target == local_address).then_some(target_id));
        (rule.kind() == PortKind::Protected).then(|| FlowKey {
            source: source.ip().into(),
            source_port: source.port(),
            port: target.port(),
            target_id: target_id.unwrap_or(0),
            protocol: protocol as u16,
        })
    }

    /// Returns whether packets of an established connection are dropped because they arrive at a knock
    /// port or decoy.
    pub fn drops_at_knock_port(&self, packets: &Packets) -> bool {
        let rule = self.ports.get(&(packets.protocol, packets.target.port()));
        rule.is_some_and(|rule| {
            let is_judged = match packets.protocol {
                Protocol::Tcp => rule.needs_handshake(),
                Protocol::Udp => true,
            };
            let is_dropped = match rule.kind() {
                PortKind::Knock | PortKind::Decoy => !rule.passes_knocks(),
                PortKind::Ordinary | PortKind::Exempt | PortKind::Protected | PortKind::Spa => {
                    false
                }
            };
            is_judged && is_dropped
        })
    }

    /// Returns an environment in memory with this configuration.
    pub fn simulate(&self) -> knock_common::sim::Sim {
        knock_common::sim::Sim {
            features: self.features,
            config: self.config,
            ports: self.port_entries().collect(),
            nodes: self.nodes.clone(),
            edges: self.edge_entries().collect(),
            doors: self.doors.clone(),
            otp: self.otp.iter().copied().collect(),
            targets: self.targets.iter().copied().collect(),
            trust: self.trust.clone(),
            block_list: self.block.clone(),
            from: self.from.clone(),
            spa_gates: self.spa.gates.clone(),
            spa_keys: self.spa.keys.iter().copied().collect(),
            spa_may: self.spa.may.iter().copied().collect(),
            fwknop_keys: self.spa.fwknop_keys.clone(),
            ..knock_common::sim::Sim::default()
        }
    }
}

/// Returns the entries of the allow map for a grant of a door to a source, or to the prefix of one.
pub fn grant_keys(door: &DoorEntry, source: Address) -> impl Iterator<Item = GrantKey> + '_ {
    let port_groups = door.port_groups.iter().take(door.port_group_count as usize);
    let source = door.grant_prefix.first_of(source);
    port_groups.map(move |&port_group| GrantKey {
        source,
        port_group,
        target_id: door.target_id,
    })
}
