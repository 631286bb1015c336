//! Tests sequences that change while packets are judged.

use knock_common::{
    Reason, judge,
    layout::{DoorEntry, Node, UsedKey},
    packet::{Protocol, flag},
    sim::Sim,
};
use proptest::prelude::*;

use super::{tests::settings, *};
use crate::{host::Host, model::settings::AcceptedSequence};

/// Generates sequences of few different knocks, so that their beginnings and ends overlap.
fn some_sequences() -> impl Strategy<Value = Vec<Vec<u16>>> {
    prop::collection::vec(prop::collection::vec(7000..7004_u16, 1..5), 0..4)
}

fn sequences(sequence_ids: &mut u32, ports: &[Vec<u16>]) -> Vec<AcceptedSequence> {
    let knock = |&port: &u16| Knock {
        protocol: Protocol::Tcp,
        port,
    };
    let sequence = |ports: &Vec<u16>| {
        *sequence_ids += 1;
        AcceptedSequence {
            knocks: ports.iter().map(knock).collect(),
            sequence_id: *sequence_ids,
            replay_domain: 7,
            good_until_ms: u64::MAX,
            per_source: Vec::new(),
        }
    };
    ports.iter().map(sequence).collect()
}

fn syn(port: u16) -> Vec<u8> {
    knock_frame::eth()
        .ip4("198.51.100.1", "192.0.2.1")
        .tcp(40_000, port, flag::SYN)
        .bytes()
}

/// A configuration with changing sequences, and maps that are updated with them.
struct Changing {
    settings: Settings,
    tables: Tables,
    sim: Sim,
    sequence_ids: u32,
    now_ms: u64,
}

impl Changing {
    fn new() -> Self {
        let settings = settings(
            "[[door]]\nname = \"fixed\"\nknock = [\"tcp/7001\", \"tcp/7000\", \"tcp/7002\"]\n\
             open = [\"tcp/22\"]\n[[door]]\nname = \"a\"\none_time = \"a\"\nopen = [\"tcp/23\"]\n\
             [[door]]\nname = \"b\"\none_time = \"b\"\nopen = [\"tcp/24\"]\n",
        );
        let tables = compiled(&settings, &Sequences::new(), None).unwrap();
        let mut sim = tables.simulate();
        sim.doors
            .resize(tables.room.doors as usize, DoorEntry::default());
        sim.nodes
            .resize(tables.room.nodes as usize, Node::default());
        Self {
            settings,
            tables,
            sim,
            sequence_ids: 0,
            now_ms: 0,
        }
    }

    /// Changes the sequences of the two doors; returns them, or nothing if they conflict.
    fn change(&mut self, a: &[Vec<u16>], b: &[Vec<u16>]) -> Option<Sequences> {
        let sequence_ids = &mut self.sequence_ids;
        let now = [
            (1, sequences(sequence_ids, a)),
            (2, sequences(sequence_ids, b)),
        ]
        .into();
        self.now_ms += 60_000;
        let before = Previous {
            tables: &self.tables,
            now_ms: self.now_ms,
        };
        let next = compiled(&self.settings, &now, Some(before)).ok()?;
        let difference = Difference::new(&self.tables, &next);
        for (index, door) in difference.doors {
            self.sim.doors[index as usize] = door;
        }
        for (index, node) in difference.nodes {
            self.sim.nodes[index as usize] = node;
        }
        self.sim.edges.extend(difference.edges);
        for (index, node) in difference.links {
            self.sim.nodes[index as usize] = node;
        }
        self.sim.ports.extend(difference.ports);
        for key in difference.gone {
            self.sim.edges.remove(&key);
        }
        self.tables = next;
        Some(now)
    }

    fn knock(&self, port: u16) -> Reason {
        judge(&syn(port)[..], &self.sim)
    }
}

fn compiled(
    settings: &Settings,
    sequences: &Sequences,
    before: Option<Previous<'_>>,
) -> Result<Tables, Vec<Conflict>> {
    let known = StableIds::default();
    let mut input = Input {
        host: &Host::default(),
        cell_key: [3; 12],
        known: before.map_or(&known, |before| &before.tables.numbers),
        draw: &mut || 0,
        sequences,
        before,
    };
    compile(settings, &mut input)
}

#[test]
fn attempts_continue_while_sequences_change() {
    let mut world = Changing::new();
    world
        .change(&[vec![7001, 7003, 7000]], &[vec![7000]])
        .unwrap();
    assert_eq!(world.knock(7001), Reason::FirstKnock);
    world.change(&[vec![7003], vec![7000, 7001]], &[]).unwrap();
    assert_eq!(world.knock(7000), Reason::NextKnock);
    world
        .change(
            &[vec![7001, 7000, 7003], vec![7002, 7001]],
            &[vec![7000, 7003]],
        )
        .unwrap();
    assert_eq!(world.knock(7002), Reason::Opened);
    // Removed sequences lead nowhere.
    assert_eq!(world.knock(7000), Reason::FirstKnock);
    world.change(&[vec![7002, 7000]], &[]).unwrap();
    assert_eq!(world.knock(7003), Reason::StrayPort);
}

#[test]
fn an_attempt_at_a_removed_sequence_leads_nowhere() {
    for (name, changed) in [
        ("none is left", &[][..]),
        ("another one begins alike", &[vec![7000, 7004]]),
        ("a shorter one is left", &[vec![7000, 7003]]),
    ] {
        let mut world = Changing::new();
        world.change(&[vec![7000, 7003, 7002]], &[]).unwrap();
        let begun = [7000, 7003].map(|port| world.knock(port));
        assert_eq!(begun, [Reason::FirstKnock, Reason::NextKnock], "{name}");
        world.change(changed, &[]).unwrap();
        assert_ne!(world.knock(7002), Reason::Opened, "{name}");
    }
}

#[test]
fn a_one_time_sequence_opens_once() {
    let mut world = Changing::new();
    world.change(&[vec![7000, 7003]], &[]).unwrap();
    let knock = |world: &Changing| [7000, 7003].map(|port| world.knock(port));
    assert_eq!(knock(&world), [Reason::FirstKnock, Reason::Opened]);
    assert_eq!(knock(&world), [Reason::FirstKnock, Reason::SequenceReused]);
    let key = UsedKey {
        replay_domain: 7,
        sequence_id: 1,
    };
    assert_eq!(world.sim.used.value(&key), Some(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Compares maps that were updated many times with freshly filled ones.
    #[test]
    fn rearranged_maps_judge_like_fresh_ones(
        times in prop::collection::vec([some_sequences(), some_sequences()], 1..6),
        knocks in prop::collection::vec(7000..7005_u16, 1..30),
    ) {
        let mut world = Changing::new();
        let mut now = Sequences::new();
        for [a, b] in &times {
            match world.change(a, b) {
                Some(changed) => now = changed,
                None => prop_assume!(false),
            }
        }
        let fresh = compiled(&world.settings, &now, None).unwrap().simulate();
        for port in knocks {
            let wanted = judge(&syn(port)[..], &fresh);
            prop_assert_eq!(world.knock(port), wanted);
        }
    }
}
