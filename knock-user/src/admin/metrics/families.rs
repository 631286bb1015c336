//! The metrics: docs/guides/metrics.md lists them.

use knock_common::{Reason, Stat};

use super::facts::{FleetFacts, MetricFacts, ProcessFacts};
use crate::{
    interfaces::coverage::CoverageState,
    ledger::Ending,
    metrics::{
        CommandOutcome, DoorTally, MetricFamily,
        MetricKind::{self, Counter, Gauge},
        Sample, Value,
    },
};

/// Returns the metrics of an instance.
pub(super) fn families(facts: &MetricFacts) -> Vec<MetricFamily> {
    let mut families = MetricFamilies::default();
    families.state(facts);
    families.interfaces(facts);
    families.kernel(facts);
    families.tables(facts);
    if let Some(process) = &facts.process {
        families.process(process);
        families.doors(facts, process);
        families.users(process);
    }
    families.0
}

#[derive(Default)]
struct MetricFamilies(Vec<MetricFamily>);

impl MetricFamilies {
    fn add(
        &mut self,
        name: &'static str,
        kind: MetricKind,
        help: &'static str,
        samples: impl IntoIterator<Item = Sample>,
    ) {
        self.0.push(MetricFamily {
            name,
            kind,
            help,
            samples: samples.into_iter().collect(),
        });
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.add(name, Gauge, help, [sample([], value)]);
    }

    fn state(&mut self, facts: &MetricFacts) {
        let status = &facts.status;
        let version = env!("CARGO_PKG_VERSION");
        self.add(
            "knock_build_info",
            Gauge,
            "Version of knock-user",
            [sample([("version", version)], true)],
        );
        self.gauge(
            "knock_process_up",
            "Whether a process reports events and runs commands",
            facts.process.is_some(),
        );
        self.gauge(
            "knock_in_force",
            "Whether everything that the configuration asks for is in force",
            status.in_force,
        );
        let mut kinds: Vec<(&str, u64)> = Vec::new();
        for shortfall in &status.shortfalls {
            match kinds.iter_mut().find(|(kind, _)| *kind == shortfall.kind) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => kinds.push((&shortfall.kind, 1)),
            }
        }
        self.add(
            "knock_shortfalls",
            Gauge,
            "Things that the configuration asks for and that are not in force, by kind",
            kinds
                .into_iter()
                .map(|(kind, count)| sample([("kind", kind)], count)),
        );
        self.gauge(
            "knock_dry_run",
            "Whether nothing is dropped",
            status.dry_run,
        );
        self.gauge(
            "knock_doors",
            "Doors of the configuration",
            status.doors as u64,
        );
        if let Some(loaded_s) = facts.loaded_s {
            self.gauge(
                "knock_program_load_timestamp_seconds",
                "Time at which the program was loaded into the kernel",
                loaded_s,
            );
        }
    }

    fn interfaces(&mut self, facts: &MetricFacts) {
        let interfaces = &facts.status.interfaces;
        let states = interfaces.iter().flat_map(|interface| {
            CoverageState::NAMES.map(|state| {
                let labels = [("interface", interface.name.as_str()), ("state", state)];
                sample(labels, interface.state == state)
            })
        });
        self.add(
            "knock_interface_state",
            Gauge,
            "Whether an interface is in this state; each is in one",
            states,
        );
        let modes = interfaces.iter().filter_map(|interface| {
            let mode = interface.mode.as_deref().filter(|_| interface.attached)?;
            Some(sample(
                [("interface", interface.name.as_str()), ("mode", mode)],
                true,
            ))
        });
        self.add(
            "knock_interface_mode",
            Gauge,
            "Mode in which the program is attached: native in the driver, skb behind it, tc at traffic control",
            modes,
        );
    }

    fn kernel(&mut self, facts: &MetricFacts) {
        let count = |number: u8| facts.counts.get(usize::from(number)).copied().unwrap_or(0);
        let packets = Reason::ALL.iter().map(|&reason| {
            let labels = [
                ("reason", reason.name()),
                ("verdict", reason.verdict().name()),
            ];
            sample(labels, count(reason as u8))
        });
        self.add("knock_packets_total", Counter, "Packets by reason", packets);
        for &stat in Stat::ALL {
            let (name, help) = of_stat(stat);
            self.add(name, Counter, help, [sample([], count(stat as u8))]);
        }
    }

    fn tables(&mut self, facts: &MetricFacts) {
        let tables = &facts.tables;
        let sizes = &facts.status.tables;
        let all = [
            ("grants", Some(tables.grants), Some(sizes.grants)),
            ("flows", Some(tables.flows), Some(sizes.flows)),
            ("attempts", tables.attempts, sizes.attempts),
        ];
        self.add(
            "knock_table_entries",
            Gauge,
            "Entries of a table, expired ones among them",
            all.into_iter()
                .filter_map(|(table, entries, _)| Some(sample([("table", table)], entries?))),
        );
        self.add(
            "knock_table_capacity",
            Gauge,
            "Entries for which a table has room",
            all.into_iter()
                .filter_map(|(table, _, most)| Some(sample([("table", table)], u64::from(most?)))),
        );
        let grants = facts.grants.iter();
        self.add(
            "knock_grants",
            Gauge,
            "Valid grants of a door, one for each source",
            grants.map(|(door, count)| sample([("door", door.as_str())], *count)),
        );
        self.gauge(
            "knock_flows",
            "Connections to protected ports that continue after their grant",
            tables.kept,
        );
        self.gauge(
            "knock_blocked_prefixes",
            "Prefixes that commands block and whose block has not expired",
            facts.status.blocked as u64,
        );
        if let Some(in_progress) = tables.in_progress {
            self.gauge(
                "knock_attempts",
                "Sources past their first knock whose attempt has not expired",
                in_progress,
            );
        }
        if let Some(locked_out) = tables.locked_out {
            self.gauge(
                "knock_locked_out_sources",
                "Sources that are locked out; an IPv6 network of 64 bits is one",
                locked_out,
            );
        }
        let left = facts.status.one_time.iter();
        self.add(
            "knock_one_time_sequences_left",
            Gauge,
            "One-time sequences of a door that are not used yet",
            left.map(|one| sample([("door", one.door.as_str())], one.sequences_left as u64)),
        );
    }

    fn process(&mut self, process: &ProcessFacts) {
        self.gauge(
            "knock_start_timestamp_seconds",
            "Time at which the process started",
            process.started_s,
        );
        self.gauge(
            "knock_config_last_change_timestamp_seconds",
            "Time at which a start or reload put the configuration in force",
            process.configured_s,
        );
        self.gauge(
            "knock_config_last_reload_successful",
            "Whether the last reload succeeded",
            !process.has_reload_failed,
        );
        if let Some(ends_s) = process.trial_ends_s {
            self.gauge(
                "knock_trial_end_timestamp_seconds",
                "Time at which the configuration is rolled back unless it is confirmed",
                ends_s,
            );
        }
        if let Some(fleet) = &process.fleet {
            self.fleet(fleet);
        }
        self.gauge(
            "knock_commands_pending",
            "Commands that run or wait",
            process.commands,
        );
    }

    fn fleet(&mut self, fleet: &FleetFacts) {
        let group = [("group", fleet.group.as_str())];
        for (name, kind, help, value) in [
            (
                "knock_fleet_in_sync",
                Gauge,
                "Whether the host follows the engine of its group",
                Value::from(fleet.is_in_sync),
            ),
            (
                "knock_fleet_grants",
                Gauge,
                "Grants of other hosts of the group",
                fleet.grants.into(),
            ),
            (
                "knock_fleet_waiting_records",
                Gauge,
                "Records that wait to be written",
                fleet.waiting.into(),
            ),
            (
                "knock_fleet_unreadable_records_total",
                Counter,
                "Records that no key of the group has sealed for their place",
                fleet.unreadable.into(),
            ),
        ] {
            self.add(name, kind, help, [sample(group, value)]);
        }
    }

    fn doors(&mut self, facts: &MetricFacts, process: &ProcessFacts) {
        let doors: Vec<_> = facts
            .grants
            .keys()
            .map(|door| (door.as_str(), process.tally.of_door(door)))
            .collect();
        // From 0, so that the first opening is an increase.
        let counted = |count: fn(&DoorTally) -> u64| {
            doors
                .iter()
                .map(move |(door, tally)| sample([("door", *door)], tally.map_or(0, count)))
        };
        self.add(
            "knock_door_openings_total",
            Counter,
            "Openings of a door for a source, by knocks, users or hand",
            counted(|tally| tally.opened),
        );
        self.add(
            "knock_door_refreshes_total",
            Counter,
            "Grants of a door that were extended",
            counted(|tally| tally.refreshed),
        );
        let closings = doors.iter().flat_map(|(door, tally)| {
            Ending::NAMES.into_iter().filter_map(move |ending| {
                let count = tally.and_then(|tally| tally.closed.get(ending)).copied();
                let count = match ending {
                    "expired" => count.unwrap_or(0),
                    _ => count?,
                };
                Some(sample([("door", *door), ("ending", ending)], count))
            })
        });
        self.add(
            "knock_door_closings_total",
            Counter,
            "Ends of grants of a door, by the reason",
            closings,
        );
        let events = doors.iter().flat_map(|(door, tally)| {
            tally
                .iter()
                .flat_map(|tally| &tally.events)
                .map(move |(reason, count)| {
                    sample([("door", *door), ("reason", reason.name())], *count)
                })
        });
        self.add(
            "knock_door_events_total",
            Counter,
            "Reported events about a door, by reason; the event limit leaves out some of a flood",
            events,
        );
        let commands = process.commanded.iter().flat_map(|(door, key)| {
            let tally = process.tally.of_door(door);
            CommandOutcome::ALL.map(|outcome| {
                let count = tally.and_then(|tally| tally.commands.get(&(*key, outcome)));
                let labels = [
                    ("door", door.as_str()),
                    ("command", *key),
                    ("outcome", outcome.name()),
                ];
                sample(labels, count.copied().unwrap_or(0))
            })
        });
        self.add(
            "knock_commands_total",
            Counter,
            "Commands of a door, by their outcome",
            commands,
        );
    }

    fn users(&mut self, process: &ProcessFacts) {
        let events = process.users.iter().flat_map(|user| {
            let counts = process.tally.of_user(user);
            let counts = counts.into_iter().flatten();
            counts.map(move |(reason, count)| {
                sample([("user", user.as_str()), ("reason", reason.name())], *count)
            })
        });
        self.add(
            "knock_user_events_total",
            Counter,
            "Reported events about packets of a user, by reason",
            events,
        );
    }
}

fn sample<const N: usize>(labels: [(&'static str, &str); N], value: impl Into<Value>) -> Sample {
    Sample {
        labels: labels.map(|(name, value)| (name, value.to_owned())).into(),
        value: value.into(),
    }
}

/// Returns the name and the help of a counter that is not about a reason.
const fn of_stat(stat: Stat) -> (&'static str, &'static str) {
    match stat {
        Stat::EventsSuppressed => (
            "knock_events_suppressed_total",
            "Events that the event limit left out",
        ),
        Stat::EventsLost => (
            "knock_events_lost_total",
            "Events that were not read in time",
        ),
        Stat::FirstKnocksEvicted => (
            "knock_first_knocks_evicted_total",
            "First knocks that those of other sources replaced",
        ),
        Stat::FlowsRefused => (
            "knock_flows_refused_total",
            "Connections for which there was no room",
        ),
        Stat::ProgressRefused => (
            "knock_attempts_refused_total",
            "Knocks for which there was no room",
        ),
        Stat::LockoutsFull => (
            "knock_failures_uncounted_total",
            "Failed attempts that were not counted because too many sources are locked out",
        ),
        Stat::KnocksPassed => (
            "knock_knocks_passed_total",
            "Knocks that passed to the network stack, as knock_pass asks",
        ),
    }
}

#[cfg(test)]
mod tests;
