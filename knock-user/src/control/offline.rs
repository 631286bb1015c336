//! What can be said of an instance that no process runs for: its maps are pinned.

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use bytemuck::Pod;
use knock_common::{
    access,
    layout::{ALLOW_MAX, FLOWS_MAX, FlowKey, GrantKey},
};

use super::{
    answers::{Detached, Grants, Status},
    facts::{self, Clock},
    health::{self, Circumstances},
};
use crate::{
    clock, coverage,
    instance::Instance,
    maps::{self, Counters, Table},
    pins,
    registry::Registry,
};

/// How it is.
///
/// # Errors
/// The maps can't be read, or this process has another clock than the kernel side.
pub fn status(instance: &Instance) -> Result<Status> {
    clock::check()?;
    let clock = Clock::now();
    let registry = registry(instance)?;
    let doors = facts::doors(&registry);
    let grants = facts::list(grants(instance)?, &doors, clock).grants.len();
    let counts = counters(instance)?;
    let idle_ms = registry.idle_ms();
    let flows = table::<FlowKey, u64>(instance, "FLOWS", FLOWS_MAX, Map::LruHashMap)?;
    let held = (grants, facts::kept(&flows, idle_ms, clock), &counts[..]);
    let interfaces = facts::interfaces(coverage::of(instance, &instance.interfaces())?);
    let status = facts::status(instance.name(), &registry, interfaces, None, held, clock);
    Ok(health::judged(status, &registry, &Circumstances::default()))
}

/// Who has grants.
///
/// # Errors
/// The maps can't be read, or this process has another clock than the kernel side.
pub fn list(instance: &Instance) -> Result<Grants> {
    clock::check()?;
    let doors = facts::doors(&registry(instance)?);
    Ok(facts::list(grants(instance)?, &doors, Clock::now()))
}

/// Removes all that an instance has.
///
/// # Errors
/// A process has it, or something can't be removed.
pub fn detach(instance: &Instance) -> Result<Detached> {
    let ports = Registry::read(&instance.registry());
    let ports = ports.ok().flatten().map(|registry| registry.protected);
    let interfaces = instance.linked();
    let locked = instance.clone().lock()?;
    locked.remove()?;
    Ok(Detached {
        interfaces,
        ports: ports.unwrap_or_default(),
    })
}

fn registry(instance: &Instance) -> Result<Registry> {
    // What has another layout can't be read.
    pins::check(instance)?;
    match Registry::read(&instance.registry())? {
        Some(registry) => Ok(registry),
        None => bail!(
            "{} is gone, so nobody knows the names of doors: start knock-user, which makes it anew",
            instance.registry().display()
        ),
    }
}

fn grants(instance: &Instance) -> Result<Vec<facts::Grant>> {
    let entries = table::<GrantKey, u64>(instance, "ALLOW", ALLOW_MAX, Map::HashMap)?;
    let grant = |(key, word)| facts::Grant::from((key, access::Grant::from_word(word)));
    Ok(entries.into_iter().map(grant).collect())
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

fn counters(instance: &Instance) -> Result<Vec<u64>> {
    Counters::of(Map::PerCpuArray(pinned(instance, "COUNTERS")?))?.all()
}

fn pinned(instance: &Instance, name: &str) -> Result<MapData> {
    let path = instance.maps().join(name);
    MapData::from_pin(&path).with_context(|| format!("opening the pinned map {}", path.display()))
}
