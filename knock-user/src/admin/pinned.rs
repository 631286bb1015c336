//! What the pins of an instance have, for subcommands that need no process.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use bytemuck::Pod;
use knock_common::{
    grant,
    layout::{ALLOW_MAX, FLOWS_MAX, FlowKey, GrantKey},
    spa::layout::SpaKeyId,
};

use super::facts::HeldGrant;
use crate::{
    kernel::{
        instance::Instance,
        maps::{self, Counters, Table},
        pins,
        registry::Registry,
    },
    sequences::stamps,
};

/// Returns the registry.
///
/// # Errors
/// The pins are of another version, or the registry can't be read.
pub(super) fn registry(instance: &Instance) -> Result<Registry> {
    // What has another layout can't be read.
    pins::check(instance, false)?;
    match Registry::read(&instance.registry())? {
        Some(registry) => Ok(registry),
        None => bail!(
            "{} is missing, and with it the names of doors: start knock-user, which writes it again",
            instance.registry().display()
        ),
    }
}

/// Returns the entries of the table of grants, expired ones among them.
///
/// # Errors
/// The map can't be read.
pub(super) fn grants(instance: &Instance) -> Result<Vec<HeldGrant>> {
    let prefixes = registry(instance)?.numbers.grant_prefixes();
    let entries = table::<GrantKey, u64>(instance, "ALLOW", ALLOW_MAX, Map::HashMap)?;
    let grant = |(key, word)| HeldGrant::of_entry((key, grant::Grant::from_word(word)), &prefixes);
    Ok(entries.into_iter().map(grant).collect())
}

/// Returns the entries of the table of flows.
///
/// # Errors
/// The map can't be read.
pub(super) fn flows(instance: &Instance) -> Result<Vec<(FlowKey, u64)>> {
    table(instance, "FLOWS", FLOWS_MAX, Map::LruHashMap)
}

/// Returns the greatest stamp that each key of a user has used, as the last process wrote them; it
/// may be a second old, and does not have what was used without a process.
///
/// # Errors
/// The file can't be read.
pub(super) fn stamps() -> Result<BTreeMap<SpaKeyId, u64>> {
    stamps::recorded()
}

/// Returns the counters by number.
///
/// # Errors
/// The map can't be read.
pub(super) fn counters(instance: &Instance) -> Result<Vec<u64>> {
    Counters::of(Map::PerCpuArray(pinned(instance, "COUNTERS")?))?.all()
}

fn table<K: Pod, V: Pod>(
    instance: &Instance,
    name: &str,
    most: u32,
    kind: fn(MapData) -> Map,
) -> Result<Vec<(K, V)>> {
    let map = kind(pinned(instance, name)?);
    let table = Table::<MapData, K, V>::try_from(map);
    let table = table.with_context(|| format!("the pinned map {name}"))?;
    Ok(maps::entries(&table, most))
}

fn pinned(instance: &Instance, name: &str) -> Result<MapData> {
    let path = instance.maps().join(name);
    MapData::from_pin(&path).with_context(|| format!("opening the pinned map {}", path.display()))
}
