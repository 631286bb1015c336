//! Reads the live maps.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, LpmTrie, MapError, lpm_trie},
};
use bytemuck::Pod;
use knock_common::{
    Address,
    layout::{FLOWS_MAX, FlowKey},
};

use crate::kernel::maps::{self, Plain, Table};

/// A reader of the live maps.
pub trait Live {
    /// Returns an element of an array; `None` past its end.
    ///
    /// # Errors
    /// Returns an error if it can't be read.
    fn element<V: Pod>(&self, map: &'static str, index: u32) -> Result<Option<V>>;

    /// Returns an entry of a hash map.
    ///
    /// # Errors
    /// Returns an error if it can't be read.
    fn entry<K: Pod, V: Pod>(&self, map: &'static str, key: K) -> Result<Option<V>>;

    /// Returns whether a prefix in a trie contains an address.
    ///
    /// # Errors
    /// Returns an error if it can't be read.
    fn has_prefix_of(&self, map: &'static str, address: Address) -> Result<bool>;

    /// Returns the value of the longest prefix in a trie that a key has.
    ///
    /// # Errors
    /// Returns an error if it can't be read.
    fn longest_prefix<K: Pod, V: Pod>(&self, map: &'static str, key: K) -> Result<Option<V>>;

    /// Returns the established flows, as words.
    ///
    /// # Errors
    /// Returns an error if they can't be read.
    fn flows(&self) -> Result<Vec<(FlowKey, u64)>>;
}

impl Live for Ebpf {
    fn element<V: Pod>(&self, map: &'static str, index: u32) -> Result<Option<V>> {
        let array = Array::<_, Plain<V>>::try_from(maps::map(self, map)?);
        found(map, array.and_then(|array| array.get(&index, 0)))
    }

    fn entry<K: Pod, V: Pod>(&self, map: &'static str, key: K) -> Result<Option<V>> {
        let table = Table::<_, K, V>::try_from(maps::map(self, map)?);
        found(map, table.and_then(|table| table.get(&Plain(key), 0)))
    }

    fn has_prefix_of(&self, map: &'static str, address: Address) -> Result<bool> {
        let found: Option<u32> = self.longest_prefix(map, address)?;
        Ok(found.is_some())
    }

    fn longest_prefix<K: Pod, V: Pod>(&self, map: &'static str, key: K) -> Result<Option<V>> {
        let trie = LpmTrie::<_, Plain<K>, Plain<V>>::try_from(maps::map(self, map)?);
        let bits = u32::try_from(size_of::<K>() * 8).unwrap_or(u32::MAX);
        let key = lpm_trie::Key::new(bits, Plain(key));
        found(map, trie.and_then(|trie| trie.get(&key, 0)))
    }

    fn flows(&self) -> Result<Vec<(FlowKey, u64)>> {
        let flows = Table::try_from(maps::map(self, "FLOWS")?).context("map FLOWS")?;
        Ok(maps::entries(&flows, FLOWS_MAX))
    }
}

fn found<V>(map: &str, got: Result<Plain<V>, MapError>) -> Result<Option<V>> {
    match got {
        Ok(Plain(value)) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::OutOfBounds { .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading map {map}")),
    }
}
