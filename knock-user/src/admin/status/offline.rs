//! The status of an instance without a process, read from its pinned maps.

use anyhow::Result;

use super::{
    answer::{Answer, TablesAnswer},
    facts::{self, MapContent},
    health::{self, HealthInput},
};
use crate::{
    admin::{
        facts::{doors, kept},
        list, pinned,
    },
    host::clock::{self, Clock},
    interfaces::coverage::{self, Coverage, CoverageState},
    kernel::{instance::Instance, pins, registry::Registry},
    model::{
        table_sizes::{SizedTable, TableSizes, Uses},
        text,
    },
};

/// Returns the status of an instance. `hanging` is the process that has it and does not answer, if there is one.
///
/// # Errors
/// The maps can't be read, or this process has another clock than the kernel side.
pub(super) fn status(instance: &Instance, hanging: Option<u32>) -> Result<Answer> {
    clock::check()?;
    let clock = Clock::now();
    let covered = coverage::of(instance, &instance.interfaces())?;
    let (registry, interrupted) = in_force(pinned::registry(instance)?, &covered);
    let grants = pinned::grants(instance)?;
    let entries = grants.len();
    let sizes = pins::sizes(instance, Uses::default(), TableSizes::default())?;
    let found = MapContent {
        grants: list::answer(grants, &doors(&registry), &Default::default(), clock)
            .grants
            .len(),
        flows: kept(&pinned::flows(instance)?, registry.idle_ms(), clock),
        blocked: pinned::blocks(instance)?
            .iter()
            .filter(|(_, block)| clock.now_ms < block.own_until_ms)
            .count(),
        counts: pinned::counters(instance)?,
        tables: TablesAnswer {
            grants: sizes.get(SizedTable::Grants),
            flows: sizes.get(SizedTable::Flows),
            ..TablesAnswer::default()
        },
    };
    let interfaces = facts::interfaces(covered);
    let status = facts::status(instance.name(), &registry, interfaces, None, &found, clock);
    let status = Answer {
        pid: hanging,
        ..status
    };
    let circumstances = HealthInput {
        entries,
        room: found.tables.grants as usize,
        interrupted,
        is_hanging: hanging.is_some(),
        ..HealthInput::default()
    };
    let mut status = health::judged(status, &registry, &circumstances);
    status
        .notes
        .extend(facts::room(entries, found.tables.grants as usize, None));
    Ok(status)
}

/// Returns the registry of the configuration in force, and a warning if it is the previous one: the
/// registry is written before programs are attached, and a process may have been killed in between.
fn in_force(registry: Registry, covered: &[Coverage]) -> (Registry, Option<String>) {
    let attached = covered.iter().filter_map(|one| match one.state {
        CoverageState::Protected { program, .. } => Some((one, program)),
        CoverageState::Bypassed { .. }
        | CoverageState::Blocked
        | CoverageState::Absent
        | CoverageState::Refused(_)
        | CoverageState::Missing => None,
    });
    let (before, now): (Vec<_>, Vec<_>) =
        attached.partition(|(_, program)| registry.is_foreign(*program));
    if before.is_empty() {
        return (registry, None);
    }
    let next = match registry.is_on_trial() {
        true => {
            "start knock-user, which puts the previous configuration in force everywhere".to_owned()
        }
        false => format!(
            "start knock-user, which puts {} in force everywhere",
            registry.config.display()
        ),
    };
    let interrupted = "a change of the configuration was interrupted";
    let Some(fallback) = registry.fallback.clone() else {
        return (
            registry,
            Some(format!(
                "{interrupted}, and which one is in force is unknown: {next}"
            )),
        );
    };
    let ports = text::list(&fallback.registry.protected);
    if now.is_empty() {
        let before = Registry {
            interfaces: registry.interfaces,
            numbers: registry.numbers,
            ..fallback.registry
        };
        let because = format!(
            "{interrupted}, and the previous one is in force, which protects {ports}: {next}"
        );
        return (before, Some(because));
    }
    let names: Vec<_> = before.iter().map(|(one, _)| one.name.as_str()).collect();
    let because = format!(
        "{interrupted}, and the previous one is in force on {}, which protects {ports}: {next}",
        names.join(", ")
    );
    (registry, Some(because))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::registry::Fallback;

    /// A daemon that is killed between two interfaces leaves one with each configuration.
    #[test]
    fn the_configuration_in_force_is_the_attached_one() {
        let before = Registry {
            programs: vec![1, 2],
            protected: vec!["tcp/22".to_owned()],
            ..Registry::default()
        };
        let registry = Registry {
            programs: vec![3, 4],
            protected: vec!["tcp/80".to_owned()],
            fallback: Some(Box::new(Fallback {
                registry: before,
                indices: vec![],
            })),
            ..Registry::default()
        };
        let unknown = Registry {
            programs: vec![],
            ..registry.clone()
        };
        let without_fallback = Registry {
            fallback: None,
            ..registry.clone()
        };
        for (name, registry, programs, ports, because) in [
            ("the new one", &registry, &[3, 4][..], "tcp/80", None),
            ("nothing is attached", &registry, &[], "tcp/80", None),
            (
                "the previous one",
                &registry,
                &[1, 2],
                "tcp/22",
                Some("the previous one is in force, which protects tcp/22"),
            ),
            (
                "one of each",
                &registry,
                &[4, 1],
                "tcp/80",
                Some("the previous one is in force on eth1, which protects tcp/22"),
            ),
            ("an older version wrote it", &unknown, &[1], "tcp/80", None),
            (
                "a foreign program",
                &without_fallback,
                &[9],
                "tcp/80",
                Some("which one is in force is unknown"),
            ),
        ] {
            let covered = (0..).zip(programs).map(|(number, &program)| Coverage {
                name: format!("eth{number}"),
                now: None,
                index: None,
                state: CoverageState::Protected {
                    mode: crate::model::attach_mode::AttachMode::Native,
                    chosen: None,
                    program,
                    is_pinned: true,
                    behind: Vec::new(),
                },
            });
            let (in_force, text) = in_force(registry.clone(), &covered.collect::<Vec<_>>());
            assert_eq!(in_force.protected, [ports], "{name}");
            let text = text.unwrap_or_default();
            match because {
                Some(because) => assert!(text.contains(because), "{name}: {text}"),
                None => assert_eq!(text, "", "{name}"),
            }
        }
    }
}
