//! Maps and links that are pinned on bpffs and outlive the process.

use std::{
    fs,
    io::ErrorKind,
    ops::Deref,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::{Array, Map, MapData, MapInfo, MapType},
    programs::links::{FdLink, LinkError, PinnedLink},
};
use knock_common::{
    Address,
    blocked::Blocked,
    layout::{
        self, BLOCKED_MAX, FlowKey, GrantKey, PRESENCE_SLOTS, PortKind, PortRule, UsedKey, VERSION,
        WAYS,
    },
    packet::Protocol,
    reason::COUNTERS_MAX,
    spa::layout::{LAST_MAX, SEEN_MAX, SpaKeyId, SpaTag},
};
use knock_sequence::{PortSet, Ports};

use crate::{
    host::interface::Interface,
    kernel::{
        bpffs::DIRECTORY, entry::Entry, instance::Instance, link_state::LinkState, maps::Plain,
    },
    model::{
        attach_mode::AttachMode,
        table_sizes::{SizedTable, TableSizes, Uses},
    },
};

/// A map that all configurations of an instance share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// The most entries that it can have.
    entries: u32,
    /// The table whose size decides how many entries it has, if it can have fewer.
    table: Option<SizedTable>,
}

const fn sized(table: SizedTable, kind: MapType, key: usize, value: usize) -> Shape {
    Shape {
        table: Some(table),
        ..shape(table.map(), kind, key, value, entries(table, table.most()))
    }
}

const fn shape(name: &'static str, kind: MapType, key: usize, value: usize, entries: u32) -> Shape {
    Shape {
        name,
        kind,
        key,
        value,
        entries,
        table: None,
    }
}

/// Returns how many entries the map of a table has: of arrays of buckets, one for each bucket.
pub(super) const fn entries(table: SizedTable, size: u32) -> u32 {
    match table {
        SizedTable::FirstKnocks => size / WAYS as u32,
        // The last element holds the key.
        SizedTable::Failures => size / WAYS as u32 + 1,
        SizedTable::Flows
        | SizedTable::Attempts
        | SizedTable::Grants
        | SizedTable::Events
        | SizedTable::Used => size,
    }
}

/// Returns the size of a table whose map has this many entries; `None` if it can't have them.
fn size(table: SizedTable, found: u32) -> Option<u32> {
    let size = match table {
        SizedTable::FirstKnocks => found.checked_mul(WAYS as u32)?,
        SizedTable::Failures => found.checked_sub(1)?.checked_mul(WAYS as u32)?,
        SizedTable::Flows
        | SizedTable::Attempts
        | SizedTable::Grants
        | SizedTable::Events
        | SizedTable::Used => found,
    };
    let fits = (table.least_by_hand()..=table.most()).contains(&size);
    (fits && table.rounded(size) == size).then_some(size)
}

/// The shared maps, which are pinned. All others belong to one configuration and end with it.
pub const SHARED: [Shape; 8] = [
    sized(SizedTable::Grants, MapType::Hash, size_of::<GrantKey>(), 8),
    sized(SizedTable::Flows, MapType::LruHash, size_of::<FlowKey>(), 8),
    sized(SizedTable::Failures, MapType::Array, 4, 8 * WAYS),
    sized(SizedTable::Used, MapType::Hash, size_of::<UsedKey>(), 8),
    shape(
        "BLOCKED",
        MapType::LpmTrie,
        4 + size_of::<Address>(),
        size_of::<Blocked>(),
        BLOCKED_MAX,
    ),
    shape("PRESENCE", MapType::Array, 4, 8, PRESENCE_SLOTS),
    shape("COUNTERS", MapType::PerCpuArray, 4, 8, COUNTERS_MAX),
    sized(SizedTable::Events, MapType::RingBuf, 0, 0),
];

/// The replay caches of SPA packets. All instances that have users share them, since a packet that
/// was used at one interface must not be used at another one, and no command removes them.
pub const REPLAY: [Shape; 2] = [
    shape(
        "SPA_LAST",
        MapType::Hash,
        size_of::<SpaKeyId>(),
        8,
        LAST_MAX,
    ),
    shape("SPA_SEEN", MapType::Hash, size_of::<SpaTag>(), 8, SEEN_MAX),
];

/// Returns the directory of [`REPLAY`], beside those of the map layouts.
pub fn replay_directory() -> PathBuf {
    Path::new(DIRECTORY).join("spa")
}

/// Returns the places of the maps that an instance pins: shared ones, failed attempts if it counts
/// them, and replay caches if it has users.
pub fn places(instance: &Instance, uses: Uses) -> impl Iterator<Item = (Shape, PathBuf)> {
    let maps = instance.maps();
    let shared = SHARED.map(|shape| (shape, maps.join(shape.name)));
    let shared = shared
        .into_iter()
        .filter(move |(shape, _)| uses.lockouts || shape.table != Some(SizedTable::Failures));
    let replay = REPLAY.map(|shape| (shape, replay_directory().join(shape.name)));
    let replay = replay.into_iter().filter(move |_| uses.users);
    shared.chain(replay)
}

/// Returns the sizes of the tables in force: pinned ones keep theirs, and the others have the `chosen` ones.
///
/// # Errors
/// A map can't be read.
pub fn sizes(instance: &Instance, uses: Uses, chosen: TableSizes) -> Result<TableSizes> {
    let mut sizes = chosen;
    for (shape, path) in places(instance, uses) {
        let Some(table) = shape.table.filter(|_| path.exists()) else {
            continue;
        };
        if let Some(size) = size(table, info(&path)?.max_entries()) {
            sizes.set(table, size);
        }
    }
    Ok(sizes)
}

fn info(path: &Path) -> Result<MapInfo> {
    MapInfo::from_pin(path).with_context(|| format!("looking at the pinned map {}", path.display()))
}

/// Checks that the pinned maps have the shapes that this program expects: the kernel would also
/// return others, and the program would misread them.
///
/// # Errors
/// A map has another shape, or can't be read.
pub fn check(instance: &Instance, uses: Uses) -> Result<()> {
    for (wanted, path) in places(instance, uses) {
        if !path.exists() {
            continue;
        }
        let info = info(&path)?;
        let found = Shape {
            kind: info.map_type()?,
            key: info.key_size() as usize,
            value: info.value_size() as usize,
            entries: info.max_entries(),
            ..wanted
        };
        // Another configuration or machine may have chosen another size.
        let is_sized = wanted.table.and_then(|table| size(table, found.entries));
        let expected = Shape {
            entries: is_sized.map_or(wanted.entries, |_| found.entries),
            ..wanted
        };
        if found != expected {
            bail!(
                "the pinned map {} has another shape than in this knock-user (map layout {VERSION}): it \
                 has {}, not {}. `knock-user detach` ends that protection with its grants, and \
                 the ports are open until the next start: start again right after it",
                path.display(),
                found.description(),
                wanted.description()
            );
        }
    }
    Ok(())
}

impl Shape {
    fn description(&self) -> String {
        let Self {
            kind,
            key,
            value,
            entries,
            ..
        } = self;
        format!("{kind:?} with keys of {key}, values of {value} bytes and {entries} entries")
    }
}

/// A pinned link.
#[derive(Debug)]
pub struct Pinned {
    /// The configured name of its interface, which is also the name of the pin.
    pub name: String,
    /// The link.
    pub link: FdLink,
    /// What it does.
    pub state: LinkState,
}

impl Deref for Pinned {
    type Target = LinkState;

    fn deref(&self) -> &LinkState {
        &self.state
    }
}

/// Returns the pinned links of an instance.
///
/// # Errors
/// They can't be read.
pub fn links(instance: &Instance) -> Result<Vec<Pinned>> {
    let mut all = Vec::new();
    for name in instance.linked() {
        let path = instance.link(&name);
        let Some(link) = open(&path)? else {
            continue;
        };
        let state = LinkState::of(&link)
            .with_context(|| format!("looking at the link {}", path.display()))?;
        all.push(Pinned { name, link, state });
    }
    Ok(all)
}

/// Returns the ports that the pinned program protects, as ranges; none if its port table is not
/// pinned.
///
/// # Errors
/// The table has another shape, or can't be read.
pub fn protected(instance: &Instance) -> Result<Option<Vec<Ports>>> {
    let path = instance.ports();
    if !path.exists() {
        return Ok(None);
    }
    let read = || format!("reading the port table {}", path.display());
    let map = MapData::from_pin(&path).with_context(read)?;
    let table = Array::<_, Plain<PortRule>>::try_from(Map::Array(map)).with_context(read)?;
    let mut protected = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for port in 0..=u16::MAX {
            let index = layout::port_index(protocol, port);
            let Plain(rule) = table.get(&index, 0).with_context(read)?;
            if rule.kind() == PortKind::Protected {
                protected.push(Ports {
                    protocol,
                    first: port,
                    last: port,
                });
            }
        }
    }
    Ok(Some(PortSet::new(protected).ranges()))
}

/// Opens a pinned link; none if it does not exist.
///
/// # Errors
/// It can't be opened.
pub fn open(path: &Path) -> Result<Option<FdLink>> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(FdLink::from(link))),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("opening the link {}", path.display())),
    }
}

/// Renames links to the names under which their interfaces are configured now, and returns the old
/// and new names. A link that loses its name to another one is released.
///
/// # Errors
/// They can't be read, or the kernel refuses.
pub fn follow_names(
    instance: &Instance,
    wanted: &[String],
    all: &[Interface],
) -> Result<Vec<(String, String)>> {
    let pinned = links(instance)?;
    let mut moves = Vec::new();
    for link in &pinned {
        let Some(on) = all.iter().find(|interface| link.holds(interface)) else {
            continue;
        };
        let is_right = on.is_called(&link.name) && wanted.contains(&link.name);
        if !is_right && let Some(now) = wanted.iter().find(|name| on.is_called(name)) {
            moves.push((link.name.clone(), now.clone()));
        }
    }
    move_all(instance, &moves)?;
    Ok(moves)
}

/// Renames links whose interfaces have lost their configured names to others to the current names,
/// so that the others can be attached under the old ones. Call it after [`follow_names`], which
/// knows the configured names.
///
/// # Errors
/// They can't be read, or the kernel refuses.
pub fn step_aside(instance: &Instance, all: &[Interface]) -> Result<()> {
    let mut moves = Vec::new();
    for link in links(instance)? {
        let on = all.iter().find(|interface| link.holds(interface));
        let is_taken = all.iter().any(|interface| interface.is_called(&link.name));
        if let Some(on) = on
            && is_taken
            && !on.is_called(&link.name)
        {
            moves.push((link.name, on.name.clone()));
        }
    }
    move_all(instance, &moves)
}

fn move_all(instance: &Instance, moves: &[(String, String)]) -> Result<()> {
    // Two interfaces may have exchanged their names, so each link gets a temporary name first. If the
    // process is killed in between, the next one finds the link under that.
    let aside = |number: usize| instance.link(&format!("%{number}"));
    for (number, (from, _)) in moves.iter().enumerate() {
        rename(&instance.link(from), &aside(number))?;
    }
    for (number, (_, to)) in moves.iter().enumerate() {
        rename(&aside(number), &instance.link(to))?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("renaming the link {} to {}", from.display(), to.display()))
}

/// Returns whether one of these links keeps the program on an interface.
pub fn is_ours(links: &[Pinned], interface: &Interface) -> bool {
    mode(links, interface).is_some()
}

/// Returns where one of these links runs the program on an interface; none if none does.
pub fn mode(links: &[Pinned], interface: &Interface) -> Option<AttachMode> {
    let mut holding = links.iter().filter(|link| link.holds(interface));
    holding.next().map(|link| link.mode(interface))
}

/// Removes the pins of the programs of a configuration that is not committed.
///
/// # Errors
/// The kernel refuses.
pub fn forget_next(instance: &Instance) -> Result<()> {
    for entry in Entry::ALL {
        unlink(&instance.next_program(entry))?;
    }
    Ok(())
}

/// Removes the pin of a link; returns whether there was one.
///
/// # Errors
/// The kernel refuses.
pub fn unlink(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}
