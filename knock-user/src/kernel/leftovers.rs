//! Removes what is left of instances whose network namespace no longer exists: its maps would take
//! memory until the next boot.

use std::{fs, time::Duration};

use crate::{
    host::{interface, netns::Living},
    kernel::{instance::Instance, pins, registry::Registry, tcx},
};

/// The least age of files without pins that are removed: younger ones may belong to a start.
const SETTLED: Duration = Duration::from_secs(60);

/// Removes and logs what network namespaces that no longer exist have left.
pub fn sweep() {
    let removed = remove();
    if !removed.is_empty() {
        tracing::warn!(
            "removed the maps and pins of network namespaces that no longer exist: {}",
            removed.join(", ")
        );
    }
}

/// Removes the other instances of this network namespace that no process serves and that protect
/// nothing, and warns of those that still protect something.
pub fn look_around(own: &Instance) {
    let pinned = Instance::all_here().unwrap_or_default().into_iter();
    let listed = Instance::listening_here().unwrap_or_default();
    let mut others: Vec<_> = pinned.chain(listed).collect();
    others.sort();
    others.dedup();
    for other in others {
        if other == *own || other.owner().is_some() {
            continue;
        }
        if other.linked().is_empty() {
            // Its pins may be in the bpffs of another mount namespace.
            if has_programs(&other) {
                continue;
            }
            // An instance that this user may not remove belongs to another user.
            let _stays = other.clone().lock().and_then(|locked| locked.remove());
            continue;
        }
        let interfaces = other.linked().join(", ");
        let first = other.linked().into_iter().next().unwrap_or_default();
        tracing::warn!(
            "{interfaces} is still protected by what an earlier knock-user has left there, and no \
             process serves it, this one neither: name it in `interfaces`, too, or end that \
             protection, which opens its ports, with `knock-user detach --iface {first}`"
        );
    }
}

/// Returns whether any of its interfaces has a program at XDP or TCX, ours or not.
fn has_programs(instance: &Instance) -> bool {
    let all = interface::list().unwrap_or_default();
    let names = instance.interfaces();
    let mut named = names.iter().filter_map(|name| interface::named(name, &all));
    named.any(|interface| {
        interface.program.is_some()
            || tcx::ingress(interface.index).is_ok_and(|programs| !programs.is_empty())
    })
}

/// Removes what network namespaces that no longer exist have left on bpffs and in the directory of
/// registries. Returns the names of instances whose maps were removed. What this process may not
/// see or change stays.
fn remove() -> Vec<String> {
    let Ok((here, elsewhere)) = Instance::pinned() else {
        return Vec::new();
    };
    let mut living = None;
    let mut living = || living.get_or_insert_with(Living::find).clone();
    let mut removed = Vec::new();
    for instance in &elsewhere {
        if instance.owner().is_none()
            && is_dead(instance, &mut living)
            && remove_pins(instance, &mut living)
        {
            removed.push(instance.name().to_owned());
        }
    }
    for instance in Instance::with_files().unwrap_or_default() {
        let is_it = |other: &Instance| other.name() == instance.name();
        if !here.iter().chain(&elsewhere).any(is_it) {
            remove_files(&instance, &mut living);
        }
    }
    removed
}

fn remove_pins(instance: &Instance, living: &mut impl FnMut() -> Living) -> bool {
    // An instance that a process serves has a living namespace.
    let Ok(locked) = instance.clone().lock() else {
        return false;
    };
    is_dead(&locked, living) && locked.remove().is_ok()
}

/// Returns whether the network namespace of an instance no longer exists, as far as the kernel
/// shows: none of its links has an interface, and nothing keeps the namespace of its registry. In
/// doubt it exists.
fn is_dead(instance: &Instance, living: &mut impl FnMut() -> Living) -> bool {
    // Links that can't be read may be in use.
    let Ok(links) = pins::links(instance) else {
        return false;
    };
    // A link with an interface still protects it, in whichever namespace.
    if links.iter().any(|link| link.index != 0) {
        return false;
    }
    match namespace(instance) {
        Some(inode) => {
            let living = living();
            !living.has(inode) && (!links.is_empty() || living.is_complete())
        }
        // Its registry may be in another /run, where a process holds the lock and waits for its
        // interface. No other file names the namespace.
        None => false,
    }
}

fn namespace(instance: &Instance) -> Option<u64> {
    let registry = Registry::read(&instance.registry());
    registry.ok().flatten()?.namespace
}

/// Removes the files of an instance without pins if neither a process nor a namespace uses it.
fn remove_files(instance: &Instance, living: &mut impl FnMut() -> Living) {
    let lock = fs::metadata(instance.lock_file()).and_then(|found| found.modified());
    let age = lock.ok().and_then(|written| written.elapsed().ok());
    if instance.owner().is_some() || age.is_some_and(|age| age < SETTLED) {
        return;
    }
    let living = living();
    let is_gone = namespace(instance).is_none_or(|inode| !living.has(inode));
    if is_gone && living.is_complete() {
        // Files that this user may not remove take no memory.
        let _stays = instance.remove_files();
    }
}
