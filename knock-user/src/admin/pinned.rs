//! Reads the pins of an instance, for subcommands that need no process.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use bytemuck::Pod;
use knock_common::{
    blocked::Blocked,
    grant,
    layout::{ALLOW_MAX, FLOWS_MAX, FlowKey, GrantKey, USED_MAX, UsedKey},
    spa::layout::{LAST_MAX, SEEN_MAX, SpaKeyId, SpaTag},
};

use super::facts::HeldGrant;
use crate::{
    kernel::{
        blocks,
        instance::Instance,
        maps::{self, Counters, Table},
        pins,
        registry::Registry,
    },
    model::{settings::Prefix, table_sizes::Uses},
    sequences::{replay_cache, stamps},
};

/// Returns the registry.
///
/// # Errors
/// The pins are of another version, or the registry can't be read.
pub(super) fn registry(instance: &Instance) -> Result<Registry> {
    // What has another layout can't be read.
    pins::check(instance, Uses::default())?;
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

/// Returns what commands have blocked, expired blocks among them.
///
/// # Errors
/// The map can't be read.
pub(super) fn blocks(instance: &Instance) -> Result<Vec<(Prefix, Blocked)>> {
    let blocks = blocks::pinned(&instance.maps().join("BLOCKED"))?.into_iter();
    Ok(blocks
        .map(|(prefix, block)| (Prefix::from_mapped(prefix), block))
        .collect())
}

/// Returns the entries of the table of flows.
///
/// # Errors
/// The map can't be read.
pub(super) fn flows(instance: &Instance) -> Result<Vec<(FlowKey, u64)>> {
    table(instance, "FLOWS", FLOWS_MAX, Map::LruHashMap)
}

/// Returns the greatest stamp that each key of a user has used: from the pinned map, if it is there,
/// and from the file of the last process.
///
/// # Errors
/// The map or the file can't be read.
pub(super) fn stamps() -> Result<BTreeMap<SpaKeyId, u64>> {
    let words = replay_table("SPA_LAST")?.map(|map| maps::entries(&map, LAST_MAX));
    stamps::recorded(&words.unwrap_or_default())
}

/// The maps of an instance that have what was used.
pub(super) struct UsedMaps {
    sequences: Option<Table<MapData, UsedKey, u64>>,
    stamps: Option<Table<MapData, SpaKeyId, u64>>,
    seen: Option<Table<MapData, SpaTag, u64>>,
}

impl UsedMaps {
    /// Opens the maps, which stay readable after their pins are removed.
    ///
    /// # Errors
    /// A map can't be opened.
    pub(super) fn open(instance: &Instance) -> Result<Self> {
        Ok(Self {
            sequences: table_if_pinned(&instance.maps().join("USED"))?,
            stamps: replay_table("SPA_LAST")?,
            seen: replay_table("SPA_SEEN")?,
        })
    }

    /// Writes what was used to the disk, in place of the process that was killed. The program must
    /// be detached.
    ///
    /// # Errors
    /// A file can't be written.
    pub(super) fn record(&self, instance: &Instance) -> Result<()> {
        let sequences = self.sequences.as_ref();
        let sequences = sequences.map(|map| maps::entries(map, USED_MAX));
        let recorded =
            replay_cache::close_without_process(instance.name(), &sequences.unwrap_or_default());
        let stamps = self.stamps.as_ref();
        let stamps = stamps.map(|map| maps::entries(map, LAST_MAX));
        let seen = self.seen.as_ref().map(|map| maps::entries(map, SEEN_MAX));
        let seen = seen.unwrap_or_default().into_iter().collect();
        stamps::close_without_process(instance.name(), &stamps.unwrap_or_default(), seen)
            .and(recorded)
    }
}

fn replay_table<K: Pod>(name: &str) -> Result<Option<Table<MapData, K, u64>>> {
    table_if_pinned(&pins::replay_directory().join(name))
}

fn table_if_pinned<K: Pod>(path: &Path) -> Result<Option<Table<MapData, K, u64>>> {
    if !path.exists() {
        return Ok(None);
    }
    let opening = || format!("opening the pinned map {}", path.display());
    let map = MapData::from_pin(path).with_context(opening)?;
    let table = Table::try_from(Map::HashMap(map)).with_context(opening)?;
    Ok(Some(table))
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
