//! Metrics of an instance without a process, from its pins.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use aya::programs::loaded_programs;

use super::facts::{MetricFacts, TableEntries};
use crate::{
    admin::{
        facts::{doors, kept},
        list, pinned, status,
    },
    host::clock::Clock,
    kernel::instance::Instance,
};

/// Returns what is known without a process.
///
/// # Errors
/// The pins can't be read.
pub(super) fn facts(instance: &Instance) -> Result<MetricFacts> {
    let status = status::offline(instance)?;
    let clock = Clock::now();
    let registry = pinned::registry(instance)?;
    let entries = pinned::grants(instance)?;
    let flows = pinned::flows(instance)?;
    let tables = TableEntries {
        grants: entries.len() as u64,
        flows: flows.len() as u64,
        attempts: None,
        kept: kept(&flows, registry.idle_ms(), clock) as u64,
        in_progress: None,
        locked_out: None,
    };
    let valid = list::answer(entries, &doors(&registry), &Default::default(), clock).grants;
    let mut grants = registry
        .ports
        .keys()
        .map(|door| (door.clone(), 0))
        .collect::<BTreeMap<String, u64>>();
    for grant in valid {
        if let Some(count) = grants.get_mut(&grant.door) {
            *count = count.saturating_add(1);
        }
    }
    let program = |id: &u32| {
        let mut all = loaded_programs().flatten();
        all.find(|program| program.id() == *id)
    };
    let loaded = registry.programs.iter().find_map(program);
    Ok(MetricFacts {
        status,
        counts: pinned::counters(instance)?,
        tables,
        grants,
        loaded_s: loaded.and_then(|program| unix_s(program.loaded_at()?)),
        process: None,
    })
}

/// Returns a time in seconds since 1970.
pub(super) fn unix_s(at: SystemTime) -> Option<f64> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}
