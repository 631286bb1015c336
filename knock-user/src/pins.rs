//! Maps and links that outlive the process, as they are found on bpffs.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::{MapInfo, MapType},
    programs::links::{FdLink, LinkError, PinnedLink},
};
use knock_common::{
    Address,
    layout::{
        ALLOW_MAX, EVENTS_BYTES, FLOWS_MAX, FlowKey, GrantKey, HINT_SLOTS, LOCKOUTS_MAX, SPENT_MAX,
        SpentKey, VERSION,
    },
    reason::COUNTERS_MAX,
};

use crate::{instance::Instance, interface::Interface};

/// A map that all configurations of an instance share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

const fn shape(name: &'static str, kind: MapType, key: usize, value: usize, entries: u32) -> Shape {
    Shape {
        name,
        kind,
        key,
        value,
        entries,
    }
}

/// The maps that are pinned. Everything else belongs to one configuration and goes with it.
pub const SHARED: [Shape; 7] = [
    shape("ALLOW", MapType::Hash, size_of::<GrantKey>(), 8, ALLOW_MAX),
    shape(
        "FLOWS",
        MapType::LruHash,
        size_of::<FlowKey>(),
        8,
        FLOWS_MAX,
    ),
    shape(
        "LOCKOUTS",
        MapType::LruHash,
        size_of::<Address>(),
        8,
        LOCKOUTS_MAX,
    ),
    shape("SPENT", MapType::Hash, size_of::<SpentKey>(), 8, SPENT_MAX),
    shape("HINTS", MapType::Array, 4, 8, HINT_SLOTS),
    shape("COUNTERS", MapType::PerCpuArray, 4, 8, COUNTERS_MAX),
    shape("EVENTS", MapType::RingBuf, 0, 0, EVENTS_BYTES),
];

/// Checks that the maps that are pinned already are what this program would make: the kernel would
/// hand out others as well, and a program that trusts their shapes would read nonsense.
///
/// # Errors
/// One is not, or can't be read.
pub fn check(instance: &Instance) -> Result<()> {
    for wanted in SHARED {
        let path = instance.maps().join(wanted.name);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path)
            .with_context(|| format!("looking at the pinned map {}", path.display()))?;
        let found = Shape {
            name: wanted.name,
            kind: info.map_type()?,
            key: info.key_size() as usize,
            value: info.value_size() as usize,
            entries: info.max_entries(),
        };
        if found != wanted {
            bail!(
                "the pinned map {} is not as this knock-user makes it (map layout {VERSION}): it \
                 has {}, not {}. `knock-user detach` ends that protection with its grants and \
                 removes it; start again right after it",
                path.display(),
                found.told(),
                wanted.told()
            );
        }
    }
    Ok(())
}

impl Shape {
    fn told(&self) -> String {
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

/// The pinned link that keeps a program on an interface; `None` if there is none, or only one that
/// was left over when its interface went away.
///
/// # Errors
/// It can't be read.
pub fn link(path: &Path, interface: &Interface) -> Result<Option<FdLink>> {
    let link = match PinnedLink::from_pin(path) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("opening the link {}", path.display()));
        }
    };
    let program = link
        .info()
        .with_context(|| format!("looking at the link {}", path.display()))?
        .program_id();
    Ok((interface.program == Some(program)).then_some(link))
}

/// The link that is pinned under the name of an interface, with the interface that it keeps a
/// program on: one of `all`, which may have another name by now.
///
/// # Errors
/// It can't be read.
pub fn live<'i>(
    instance: &Instance,
    name: &str,
    all: &'i [Interface],
) -> Result<Option<(FdLink, &'i Interface)>> {
    let path = instance.link(name);
    if let Some(interface) = all.iter().find(|interface| interface.name == name) {
        return Ok(link(&path, interface)?.map(|link| (link, interface)));
    }
    let linked = instance.linked();
    for interface in all {
        // All interfaces of an instance have the same program.
        if !linked.contains(&interface.name)
            && let Some(link) = link(&path, interface)?
        {
            return Ok(Some((link, interface)));
        }
    }
    Ok(None)
}

/// Gives links the names that their interfaces have now, where those are asked for; tells the old
/// names and the new ones.
///
/// # Errors
/// They can't be read, or the kernel refuses.
pub fn follow_names(
    instance: &Instance,
    wanted: &[String],
    all: &[Interface],
) -> Result<Vec<(String, String)>> {
    let mut renamed = Vec::new();
    for old in instance.linked() {
        if let Some((_, Interface { name, .. })) = live(instance, &old, all)?
            && *name != old
            && wanted.contains(name)
        {
            let [from, to] = [instance.link(&old), instance.link(name)];
            fs::rename(&from, &to).with_context(|| {
                format!("renaming the link {} to {}", from.display(), to.display())
            })?;
            renamed.push((old, name.clone()));
        }
    }
    Ok(renamed)
}

/// Whether the program on an interface is kept there by this instance.
pub fn is_ours(instance: &Instance, interface: &Interface) -> bool {
    link(&instance.link(&interface.name), interface).is_ok_and(|link| link.is_some())
}

/// Ends the link to an interface, if there is one; tells whether there was.
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
