//! Which interfaces are protected by which instance: several knock-user may share a network namespace.

use crate::{
    host::addresses::Link,
    kernel::{instance::Instance, pins, registry::Registry},
};

/// Notes which instance protects each of these interfaces, as far as this process may see that.
pub fn note(links: &mut [Link]) {
    for instance in Instance::of_all_layouts().unwrap_or_default() {
        let registry = Registry::read(&instance.registry()).ok().flatten();
        // What drops nothing protects nothing, and what is not known is no reason to be silent.
        if registry.is_none_or(|registry| registry.dry_run) {
            continue;
        }
        for pinned in pins::links(&instance).unwrap_or_default() {
            let mut on = links.iter_mut();
            let on =
                on.find(|link| link.index == pinned.index && link.program == Some(pinned.program));
            if let Some(link) = on {
                link.guard = Some(instance.name().to_owned());
            }
        }
    }
}
