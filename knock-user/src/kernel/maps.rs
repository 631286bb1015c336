//! Typed access to the maps of the kernel side.

use std::{
    borrow::{Borrow, BorrowMut},
    fs,
    io::ErrorKind,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie},
};
use bytemuck::Pod;
use knock_common::{grant::Grant, layout::GrantKey, reason::COUNTERS_MAX};

/// Wraps a map value so that it implements `aya::Pod`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: `bytemuck::Pod` promises more than `aya::Pod` asks: any bytes are a value, none is padding.
unsafe impl<T: Pod> aya::Pod for Plain<T> {}

/// A hash map.
pub type Table<M, K, V> = HashMap<M, Plain<K>, Plain<V>>;

/// Returns the map with a name.
///
/// # Errors
/// The object has no such map: it is from another build.
pub fn map<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a Map> {
    ebpf.map(name).with_context(|| missing(name))
}

/// Returns the map with a name, to write to; errors as for [`map`].
pub fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    ebpf.map_mut(name).with_context(|| missing(name))
}

fn missing(name: &str) -> String {
    format!("the kernel object has no map {name}: rebuild knock-user with `cargo xtask build-ebpf`")
}

/// Returns the descriptor of a map; `None` for types that the program does not use.
pub(super) fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    if let Map::Array(data)
    | Map::PerCpuArray(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::LpmTrie(data)
    | Map::RingBuf(data) = map
    {
        Some(data.fd().as_fd())
    } else {
        None
    }
}

/// Returns the memory of a map, in octets, as the kernel counts it; `None` if it does not report it.
pub(super) fn memory(map: BorrowedFd<'_>) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    line?.trim().parse().ok()
}

/// Writes an element of an array.
pub fn set<V: Pod>(
    ebpf: &mut Ebpf,
    name: &str,
    entries: impl IntoIterator<Item = (u32, V)>,
) -> Result<()> {
    let mut array = Array::<_, Plain<V>>::try_from(map_mut(ebpf, name)?)
        .with_context(|| format!("map {name}"))?;
    for (index, value) in entries {
        array
            .set(index, Plain(value), 0)
            .with_context(|| format!("writing element {index} of map {name}"))?;
    }
    Ok(())
}

/// Writes entries of a hash map.
pub fn insert<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &str,
    entries: impl IntoIterator<Item = (K, V)>,
) -> Result<()> {
    let mut table =
        Table::<_, K, V>::try_from(map_mut(ebpf, name)?).with_context(|| format!("map {name}"))?;
    for (key, value) in entries {
        table
            .insert(Plain(key), Plain(value), 0)
            .with_context(|| format!("writing an entry of map {name}"))?;
    }
    Ok(())
}

/// Writes prefixes of a trie.
pub fn insert_prefixes<K: Pod>(
    ebpf: &mut Ebpf,
    name: &str,
    prefixes: impl IntoIterator<Item = (u32, K)>,
) -> Result<()> {
    let mut trie = LpmTrie::<_, Plain<K>, u32>::try_from(map_mut(ebpf, name)?)
        .with_context(|| format!("map {name}"))?;
    for (bits, data) in prefixes {
        trie.insert(&lpm_trie::Key::new(bits, Plain(data)), 1, 0)
            .with_context(|| format!("writing a prefix of map {name}"))?;
    }
    Ok(())
}

/// Returns at most `most` entries of a hash map. Entries that are deleted meanwhile may be missing.
///
/// The kernel starts over when the entry that was read last is deleted. The bound ends that, and an
/// entry may be listed twice.
pub fn entries<M: Borrow<MapData>, K: Pod, V: Pod>(
    table: &Table<M, K, V>,
    most: u32,
) -> Vec<(K, V)> {
    table
        .iter()
        .take(most as usize)
        .flatten()
        .map(|(Plain(key), Plain(value))| (key, value))
        .collect()
}

/// Writes an entry unless the key exists; returns whether it was written.
pub fn insert_new<M: BorrowMut<MapData>, K: Pod, V: Pod>(
    table: &mut Table<M, K, V>,
    key: K,
    value: V,
) -> Result<bool, MapError> {
    /// `BPF_NOEXIST`.
    const NO_EXIST: u64 = 1;
    match table.insert(Plain(key), Plain(value), NO_EXIST) {
        Ok(()) => Ok(true),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::AlreadyExists => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether the error means that the map is full.
pub fn is_full(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(nix::libc::E2BIG))
}

/// Writes a grant, unless an existing one ends later.
///
/// The remark at [`delete_if`] applies: what a packet writes between the two system calls is
/// replaced, so a grant that ends later can be lost, and one that was closed in between is open.
pub fn raise<M: BorrowMut<MapData>>(
    table: &mut Table<M, GrantKey, u64>,
    key: GrantKey,
    grant: Grant,
) -> Result<(), MapError> {
    match table.get(&Plain(key), 0) {
        Ok(Plain(held)) if Grant::from_word(held).until_ms >= grant.until_ms => Ok(()),
        Ok(_) => table.insert(Plain(key), Plain(grant.to_word()), 0),
        // A grant that the kernel side writes meanwhile is newer.
        Err(MapError::KeyNotFound) => insert_new(table, key, grant.to_word()).map(drop),
        Err(error) => Err(error),
    }
}

/// Deletes an entry if it still has this value; returns whether it is gone.
///
/// The kernel side may have written the entry since it was read. What it writes between the comparison
/// and the deletion, two system calls that follow each other, is lost.
pub fn delete_if<M: BorrowMut<MapData>, K: Pod, V: Pod + PartialEq>(
    table: &mut Table<M, K, V>,
    key: K,
    value: V,
) -> Result<bool, MapError> {
    match table.get(&Plain(key), 0) {
        Ok(Plain(held)) if held != value => Ok(false),
        Ok(_) => delete(table, key).map(|()| true),
        Err(MapError::KeyNotFound) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Writes another value if the entry still has the old one; returns whether it was written. The remark
/// at [`delete_if`] applies.
pub fn replace_if<M: BorrowMut<MapData>, K: Pod, V: Pod + PartialEq>(
    table: &mut Table<M, K, V>,
    key: K,
    old: V,
    new: V,
) -> Result<bool, MapError> {
    match table.get(&Plain(key), 0) {
        Ok(Plain(held)) if held != old => Ok(false),
        Ok(_) => table.insert(Plain(key), Plain(new), 0).map(|()| true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes an entry, which may be gone already. Use it where nothing else writes the entry.
pub fn delete<M: BorrowMut<MapData>, K: Pod, V: Pod>(
    table: &mut Table<M, K, V>,
    key: K,
) -> Result<(), MapError> {
    match table.remove(&Plain(key)) {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

/// The counters, summed over all CPUs when read.
pub struct Counters<M>(PerCpuArray<M, u64>);

impl<M: Borrow<MapData>> Counters<M> {
    /// Opens the counters in the map `COUNTERS` of a loaded object or of a pin.
    ///
    /// # Errors
    /// The map has another type.
    pub fn of<A>(map: A) -> Result<Self>
    where
        PerCpuArray<M, u64>: TryFrom<A, Error = MapError>,
    {
        let counters = PerCpuArray::try_from(map).context("map COUNTERS")?;
        Ok(Self(counters))
    }

    /// Returns the counter with the number of a reason or tally.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn get(&self, number: u32) -> Result<u64> {
        let values = self.0.get(&number, 0);
        let values = values.with_context(|| format!("reading counter {number}"))?;
        Ok(values.iter().sum())
    }

    /// Returns all counters by their numbers.
    ///
    /// # Errors
    /// As for [`Counters::get`].
    pub fn all(&self) -> Result<Vec<u64>> {
        (0..COUNTERS_MAX).map(|number| self.get(number)).collect()
    }
}
