use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    admin::{
        metrics::facts::{FleetFacts, TableEntries},
        status::{self, InterfaceAnswer, OneTimeStatus, Shortfall},
    },
    commands::Occasion,
    ledger::LedgerAction,
    metrics::{Format, Tally},
};

const PAGE: &str = include_str!("../../../../../docs/guides/metrics.md");
const RULES: &str = include_str!("../../../../../dist/prometheus/knock.rules.yml");
const DASHBOARD: &str = include_str!("../../../../../dist/grafana/knock.json");

/// Facts that every metric has a value of.
fn facts() -> MetricFacts {
    let mut tally = Tally::default();
    tally.retain(&["ssh"].into(), [(1, "alice".to_owned())].into());
    let event = knock_common::event::Event {
        reason: Reason::SpaReplayed as u8,
        user: 1,
        ..bytemuck::Zeroable::zeroed()
    };
    tally.event(&event, Some("ssh"));
    let source = knock_common::Address::ANY;
    for action in [
        LedgerAction::Opened {
            source,
            door: 0,
            until_ms: 1,
            by: None,
        },
        LedgerAction::Closed {
            source,
            door: 0,
            ending: Ending::Removed,
        },
    ] {
        tally.action(&action, "ssh");
    }
    tally.command("ssh", Occasion::Open, CommandOutcome::Timeout);
    let short = |kind: &str| Shortfall {
        kind: kind.to_owned(),
        ..Shortfall::default()
    };
    let mut counts = vec![0; 256];
    counts[Reason::NoGrant as usize] = 17;
    counts[Stat::EventsLost as usize] = 3;
    MetricFacts {
        status: status::Answer {
            tables: status::TablesAnswer {
                grants: 65_536,
                ..status::TablesAnswer::default()
            },
            interfaces: vec![InterfaceAnswer {
                name: "eth0".to_owned(),
                state: "protected".to_owned(),
                attached: true,
                mode: Some("native".to_owned()),
                ..InterfaceAnswer::default()
            }],
            shortfalls: vec![short("absent"), short("full"), short("absent")],
            one_time: vec![OneTimeStatus {
                door: "ssh".to_owned(),
                sequences_left: 9,
                ..OneTimeStatus::default()
            }],
            doors: 2,
            ..status::Answer::default()
        },
        counts,
        tables: TableEntries {
            grants: 5,
            flows: 6,
            attempts: Some(7),
            kept: 4,
            in_progress: Some(3),
            locked_out: Some(2),
        },
        grants: [("ssh".to_owned(), 2), ("web".to_owned(), 0)].into(),
        loaded_s: Some(1.5),
        process: Some(ProcessFacts {
            trial_ends_s: Some(2.5),
            fleet: Some(FleetFacts {
                group: "web".to_owned(),
                is_in_sync: true,
                grants: 8,
                ..FleetFacts::default()
            }),
            users: vec!["alice".to_owned(), "bob".to_owned()],
            commanded: vec![("ssh".to_owned(), "on_open")],
            tally,
            ..ProcessFacts::default()
        }),
    }
}

#[test]
fn every_metric_is_on_the_page_with_its_type_and_labels() {
    let mut expected = BTreeMap::new();
    for family in families(&facts()) {
        let kind = match family.kind {
            Counter => "counter",
            Gauge => "gauge",
        };
        let sample = family.samples.first();
        let sample = sample.unwrap_or_else(|| panic!("{} has no sample", family.name));
        let labels: Vec<_> = sample
            .labels
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        expected.insert(family.name, (kind, labels.join(", ")));
    }
    let rows = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `knock_"));
    let found: BTreeMap<_, _> = rows
        .map(|row| {
            let mut cells = row.split('|').map(str::trim);
            let mut cell = || cells.next().unwrap();
            let name = format!("knock_{}", cell().trim_end_matches('`'));
            (name, (cell(), cell().to_owned()))
        })
        .collect();
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(name, rest)| (name.to_owned(), rest))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn rules_and_dashboard_use_metrics_that_there_are() {
    let families = families(&facts());
    let names: BTreeSet<_> = families.iter().map(|family| family.name).collect();
    for (name, text) in [("rules", RULES), ("dashboard", DASHBOARD)] {
        let is_part = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let used: BTreeSet<_> = text
            .split(is_part)
            .filter(|word| word.starts_with("knock_"))
            .collect();
        assert!(used.len() > 8, "{name}: {used:?}");
        assert!(used.is_subset(&names), "{name}: {used:?}");
    }
}

#[test]
fn each_fact_is_a_line_with_its_labels() {
    let text = Format::Classic.write(&families(&facts()));
    for line in [
        "knock_process_up 1",
        "knock_in_force 0",
        "knock_shortfalls{kind=\"absent\"} 2",
        "knock_shortfalls{kind=\"full\"} 1",
        "knock_interface_state{interface=\"eth0\",state=\"protected\"} 1",
        "knock_interface_state{interface=\"eth0\",state=\"blocked\"} 0",
        "knock_packets_total{reason=\"no-grant\",verdict=\"drop\"} 17",
        "knock_packets_total{reason=\"granted\",verdict=\"pass\"} 0",
        "knock_events_lost_total 3",
        "knock_table_entries{table=\"attempts\"} 7",
        "knock_table_capacity{table=\"grants\"} 65536",
        "knock_grants{door=\"web\"} 0",
        "knock_door_openings_total{door=\"ssh\"} 1",
        "knock_door_openings_total{door=\"web\"} 0",
        "knock_door_closings_total{door=\"ssh\",ending=\"expired\"} 0",
        "knock_door_closings_total{door=\"ssh\",ending=\"removed\"} 1",
        "knock_door_events_total{door=\"ssh\",reason=\"spa-replayed\"} 1",
        "knock_user_events_total{user=\"alice\",reason=\"spa-replayed\"} 1",
        "knock_commands_total{door=\"ssh\",command=\"on_open\",outcome=\"timeout\"} 1",
        "knock_commands_total{door=\"ssh\",command=\"on_open\",outcome=\"success\"} 0",
        "knock_one_time_sequences_left{door=\"ssh\"} 9",
        "knock_program_load_timestamp_seconds 1.500",
        "knock_fleet_in_sync{group=\"web\"} 1",
        "knock_fleet_grants{group=\"web\"} 8",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    let alone = MetricFacts {
        process: None,
        ..facts()
    };
    let text = Format::Classic.write(&families(&alone));
    assert!(text.contains("\nknock_process_up 0\n"), "{text}");
    assert!(!text.contains("knock_door_openings_total"), "{text}");
}
