//! The files on bpffs that outlive a knock-user.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::{
    maps::{Array, Map, MapData, MapInfo, PerCpuArray},
    programs::{ProgramInfo, loaded_programs},
};
use knock_common::{
    Reason,
    layout::{Config, GrantKey},
};
use knock_user::kernel::{
    barrier,
    entry::Entry,
    instance::Instance,
    maps::{Plain, Table},
    tcx,
};
use serde_json::Value;

use crate::{namespace::Namespace, wait};

/// Returns the instances of a namespace, of all map layouts.
///
/// # Panics
/// The pins can't be read.
#[track_caller]
pub fn instances(namespace: &Namespace) -> Vec<Instance> {
    match namespace.enter(Instance::of_all_layouts) {
        Ok(instances) => instances,
        Err(error) => panic!("looking for instances: {error:#}"),
    }
}

/// Returns the one instance of a namespace.
///
/// # Panics
/// There is none, or more than one.
#[track_caller]
pub fn instance(namespace: &Namespace) -> Instance {
    let mut instances = instances(namespace);
    match (instances.pop(), instances.pop()) {
        (Some(only), None) => only,
        (last, other) => panic!("not one instance: {last:?} {other:?}"),
    }
}

/// Returns the allow map, whether or not a process runs: grants as words.
///
/// # Panics
/// It does not exist.
#[track_caller]
pub fn allow(instance: &Instance) -> Table<MapData, GrantKey, u64> {
    let path = instance.maps().join("ALLOW");
    let opened = || -> anyhow::Result<_> {
        let map = Map::HashMap(MapData::from_pin(&path)?);
        Ok(Table::try_from(map)?)
    };
    match opened() {
        Ok(table) => table,
        Err(error) => panic!("opening {}: {error:#}", path.display()),
    }
}

/// Returns how often a reason was counted, whether or not a process runs.
///
/// # Panics
/// The pinned counters can't be read.
#[track_caller]
pub fn counted(instance: &Instance, reason: Reason) -> u64 {
    let path = instance.maps().join("COUNTERS");
    let counted = || -> anyhow::Result<u64> {
        let map = Map::PerCpuArray(MapData::from_pin(&path)?);
        let counters = PerCpuArray::<_, u64>::try_from(map)?;
        Ok(counters.get(&(reason as u32), 0)?.iter().sum())
    };
    match counted() {
        Ok(count) => count,
        Err(error) => panic!("reading {}: {error:#}", path.display()),
    }
}

/// Returns the path of an instance's first pinned program: where the program runs depends on the kernel.
///
/// # Panics
/// None is pinned.
#[track_caller]
pub fn program(instance: &Instance) -> PathBuf {
    let mut paths = Entry::ALL.into_iter().map(|entry| instance.program(entry));
    match paths.find(|path| path.exists()) {
        Some(path) => path,
        None => panic!("no program is pinned in {}", instance.pins().display()),
    }
}

/// Returns the content of the attached program's map `CONFIG`, which is not pinned.
///
/// # Panics
/// It can't be read.
#[track_caller]
pub fn config(instance: &Instance) -> Config {
    let path = program(instance);
    let read = || -> anyhow::Result<Config> {
        let maps = ProgramInfo::from_pin(&path)?.map_ids()?.unwrap_or_default();
        let named = |id: &u32| {
            let info = MapInfo::from_id(*id);
            info.is_ok_and(|info| info.name_as_str() == Some("CONFIG"))
        };
        let id = maps.into_iter().find(named).context("no such map")?;
        let array = Array::<_, Plain<Config>>::try_from(Map::Array(MapData::from_id(id)?))?;
        Ok(array.get(&0, 0)?.0)
    };
    match read() {
        Ok(config) => config,
        Err(error) => panic!("reading CONFIG of {}: {error:#}", path.display()),
    }
}

/// Asserts that nothing is attached in a namespace or pinned for it, and that these programs are unloaded.
///
/// # Panics
/// One of these is not so.
#[track_caller]
pub fn nothing_is_left(namespace: &Namespace, programs: &[u32]) {
    // The kernel ends a link whose file is removed a moment later.
    wait::until("nothing is attached", || {
        attached_programs(namespace).is_empty()
    });
    let left = instances(namespace);
    let pins: Vec<_> = left.iter().map(|instance| tree(&instance.pins())).collect();
    assert_eq!(left, [], "pinned: {pins:?}");
    are_unloaded(programs);
}

/// Returns the files and directories below a directory.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| [tree(&path), vec![path]].concat())
        .collect()
}

/// Waits until the kernel has unloaded these programs.
///
/// # Panics
/// One of them stays loaded.
#[track_caller]
pub fn are_unloaded(programs: &[u32]) {
    wait::until(&format!("programs {programs:?} are unloaded"), || {
        let loaded: Vec<_> = loaded_programs().flatten().map(|p| p.id()).collect();
        !programs.iter().any(|id| loaded.contains(id))
    });
}

/// Ids of the programs on the interfaces of a namespace, at XDP and at traffic control.
///
/// # Panics
/// `ip` fails or prints something else.
#[track_caller]
pub fn attached_programs(namespace: &Namespace) -> Vec<u32> {
    let links = namespace.run("ip", &["-json", "link"]);
    let links: Value = match serde_json::from_str(&links) {
        Ok(links) => links,
        Err(error) => panic!("`ip -json link` printed {links}: {error}"),
    };
    let id = |link: &Value| u32::try_from(link.pointer("/xdp/prog/id")?.as_u64()?).ok();
    let index = |link: &Value| u32::try_from(link.pointer("/ifindex")?.as_u64()?).ok();
    let links: Vec<_> = links.as_array().into_iter().flatten().collect();
    let mut all: Vec<_> = links.iter().filter_map(|link| id(link)).collect();
    let indices: Vec<_> = links.iter().filter_map(|link| index(link)).collect();
    let placed = namespace.enter(|| {
        // Kernels before 6.6 have no TCX.
        let placed = indices.iter().filter_map(|index| tcx::ingress(*index).ok());
        placed.flatten().collect::<Vec<_>>()
    });
    let is_barrier = |id: u32| {
        let mut loaded = loaded_programs().flatten();
        loaded.any(|one| one.id() == id && one.name_as_str() == Some(barrier::PROGRAM))
    };
    let placed = placed.into_iter().map(|placed| placed.program);
    all.extend(placed.filter(|id| !is_barrier(*id)));
    all
}
