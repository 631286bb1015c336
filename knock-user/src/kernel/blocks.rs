//! The sources that commands have blocked, as the map `BLOCKED` has them.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{LpmTrie, Map, MapData};
use knock_common::{Address, blocked::Blocked, layout::BLOCKED_MAX};

use super::maps::Plain;
use crate::model::prefix::MappedPrefix;

/// The map `BLOCKED`.
pub(super) type Trie<M> = LpmTrie<M, Plain<Address>, Plain<Blocked>>;

/// Returns the entries of the map `BLOCKED`, expired ones among them.
///
/// # Errors
/// The map can't be read.
pub(super) fn entries(map: &Map) -> Result<Vec<(MappedPrefix, Blocked)>> {
    let trie = Trie::<&MapData>::try_from(map).context("map BLOCKED")?;
    let entries = trie.iter().take(BLOCKED_MAX as usize).flatten();
    Ok(entries
        .map(|(key, Plain(block))| ((key.data().0, key.prefix_len()), block))
        .collect())
}

/// Returns what commands have blocked on an instance, expired blocks among them, without its process.
///
/// # Errors
/// The pinned map can't be read.
pub fn pinned(path: &Path) -> Result<Vec<(MappedPrefix, Blocked)>> {
    let map = MapData::from_pin(path)
        .with_context(|| format!("opening the pinned map {}", path.display()))?;
    entries(&Map::LpmTrie(map))
}
