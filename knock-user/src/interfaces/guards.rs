//! Finds out which instance protects which interface: several knock-user may share a network
//! namespace.

use crate::{
    host::addresses::Link,
    kernel::{instance::Instance, pins, registry::Registry},
};

/// Notes which instance protects each of these interfaces, as far as this process can see.
pub fn note(links: &mut [Link]) {
    for instance in Instance::of_all_layouts().unwrap_or_default() {
        let registry = Registry::read(&instance.registry()).ok().flatten();
        // An instance in a dry run protects nothing, and one without a readable registry may not.
        if registry.is_none_or(|registry| registry.dry_run) {
            continue;
        }
        for pinned in pins::links(&instance).unwrap_or_default() {
            if let Some(link) = links
                .iter_mut()
                .find(|link| pinned.is_on(link.index, link.program))
            {
                link.guard = Some(instance.name().to_owned());
                link.guarded_as = Some(pinned.name);
            }
        }
    }
}
