//! Finds the instances of this host.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, bail};
use knock_common::layout;

use super::instance::{Instance, escaped, names_in};
use crate::{
    host::{
        interface::{self, Interface},
        netns,
        paths::RUN,
    },
    kernel::{
        bpffs::{self, DIRECTORY as PINS},
        pins,
    },
    model::problem::Misuse,
};

impl Instance {
    /// Returns the instances of this network namespace that this program can take over.
    ///
    /// # Errors
    /// The pins can't be read.
    pub fn all_here() -> Result<Vec<Self>> {
        let current = layout::VERSION.to_string();
        let mut all = Self::of_all_layouts()?;
        all.retain(|instance| instance.layout == current);
        Ok(all)
    }

    /// Returns the instances of this network namespace, including those of older and newer
    /// programs, and those that protect an interface which was moved here from another namespace.
    ///
    /// # Errors
    /// The pins or the interfaces can't be read.
    pub fn of_all_layouts() -> Result<Vec<Self>> {
        let (mut here, elsewhere) = Self::pinned()?;
        if !elsewhere.is_empty() {
            let all = interface::list()?;
            here.extend(
                elsewhere
                    .into_iter()
                    .filter(|instance| instance.is_attached_to(&all)),
            );
            here.sort();
        }
        Ok(here)
    }

    /// Returns all instances with pins: those that were created in this network namespace, and all
    /// others.
    ///
    /// # Errors
    /// The pins can't be read.
    pub fn pinned() -> Result<(Vec<Self>, Vec<Self>)> {
        let suffix = suffix()?;
        let mut all = Vec::new();
        let mut layouts = names_in(Path::new(PINS))?;
        // What all instances share is beside them.
        layouts.retain(|name| name.parse::<u32>().is_ok());
        for layout in layouts {
            for name in names_in(&Path::new(PINS).join(&layout))? {
                let layout = layout.clone();
                all.push(Self { name, layout });
            }
        }
        all.sort();
        Ok(all
            .into_iter()
            .partition(|instance| instance.name.ends_with(&suffix)))
    }

    /// Returns whether one of its links is on one of these interfaces.
    fn is_attached_to(&self, all: &[Interface]) -> bool {
        // An instance whose links can't be read can't be taken over.
        let links = pins::links(self).unwrap_or_default();
        all.iter().any(|interface| pins::is_ours(&links, interface))
    }

    /// Returns the instances that have files in the directory of registries and sockets.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn with_files() -> Result<Vec<Self>> {
        let files = names_in(Path::new(RUN))?;
        let names: BTreeSet<_> = files
            .iter()
            .filter_map(|file| file.rsplit_once('.'))
            .map(|(name, _)| name)
            .collect();
        Ok(names.into_iter().map(Self::named).collect())
    }

    /// Returns the instances of this network namespace that have a control socket. Users who may
    /// not read pins find these, too.
    ///
    /// # Errors
    /// The directory of the sockets can't be read.
    pub fn listening_here() -> Result<Vec<Self>> {
        let suffix = suffix()?;
        let mut all = Self::listening()?;
        all.retain(|instance| instance.name.ends_with(&suffix));
        Ok(all)
    }

    /// Returns the instances of all network namespaces that have a control socket.
    ///
    /// # Errors
    /// The directory of the sockets can't be read.
    pub fn listening() -> Result<Vec<Self>> {
        let names = names_in(Path::new(RUN))?.into_iter();
        let mut all: Vec<_> = names
            .filter_map(|name| Some(Self::named(name.strip_suffix(".sock")?)))
            .collect();
        all.sort();
        Ok(all)
    }

    /// Returns the instance that protects one of these interfaces, or a new one, and creates the
    /// directory for its pins.
    ///
    /// # Errors
    /// Nothing can be pinned, or as for [`Self::protecting`].
    pub fn of(interfaces: &[String]) -> Result<Self> {
        bpffs::ensure(Path::new(PINS))?;
        match Self::protecting(interfaces)? {
            Some(owner) => Ok(owner),
            None => Self::new(interfaces, &layout::VERSION.to_string()),
        }
    }

    /// Returns the instance that protects one of these interfaces, and changes nothing.
    ///
    /// # Errors
    /// A name can't be that of an interface, or the interfaces belong to several instances or to one
    /// with another map layout.
    pub fn protecting(interfaces: &[String]) -> Result<Option<Self>> {
        if let Some(name) = interfaces.iter().find(|name| !is_name(name)) {
            return Err(Misuse(format!(
                "{name:?} can't be the name of an interface: list interfaces with `ip link`"
            ))
            .into());
        }
        let mut owners = Self::of_all_layouts()?;
        owners.retain(|instance| instance.has_any(interfaces));
        let current = layout::VERSION.to_string();
        if let Some(other) = owners.iter().find(|owner| owner.layout != current) {
            bail!(
                "{} is protected by a knock-user whose maps have layout {}, and this one has \
                 layout {current}: grants can't be taken over. `knock-user detach` ends that \
                 protection and its grants, and the ports are open until the next start: start \
                 again right after it",
                other.interfaces().join(", "),
                other.layout
            );
        }
        match owners.as_slice() {
            [] => Ok(None),
            [owner] => Ok(Some(owner.clone())),
            [..] => {
                let list: Vec<_> = owners
                    .iter()
                    .map(|owner| owner.interfaces().join(" and "))
                    .collect();
                bail!(
                    "several instances of knock-user protect {}: {}. Start one for each, or end \
                     one, which opens its ports: `knock-user detach --iface {}`",
                    interfaces.join(", "),
                    list.join("; "),
                    owners.last().map_or_else(String::new, |last| last.first())
                )
            }
        }
    }

    fn new(interfaces: &[String], layout: &str) -> Result<Self> {
        let first = interfaces.first().map_or("none", String::as_str);
        let suffix = suffix()?;
        (1..)
            .map(|count: u32| match count {
                1 => format!("{}{suffix}", escaped(first)),
                _ => format!("{}~{count}{suffix}", escaped(first)),
            })
            .map(|name| Self {
                name,
                layout: layout.to_owned(),
            })
            // A start that is killed at its beginning leaves an unused instance.
            .find(|instance| !instance.pins().exists() || instance.interfaces().is_empty())
            .context("there are too many instances")
    }

    /// Returns whether the instance protects one of these interfaces, or waits for one.
    pub fn has_any(&self, interfaces: &[String]) -> bool {
        let mine = self.interfaces();
        if interfaces.iter().any(|interface| mine.contains(interface)) {
            return true;
        }
        // An interface may be configured by its name here and by an alternative name there.
        let all = interface::list().unwrap_or_default();
        // A renamed interface is found by the number in its link.
        let links = pins::links(self).unwrap_or_default();
        if interfaces
            .iter()
            .filter_map(|name| interface::named(name, &all))
            .any(|interface| pins::is_ours(&links, interface))
        {
            return true;
        }
        let number = |name: &String| interface::named(name, &all).map(|found| found.index);
        let mine: BTreeSet<_> = mine.iter().filter_map(number).collect();
        interfaces
            .iter()
            .filter_map(number)
            .any(|index| mine.contains(&index))
    }

    fn first(&self) -> String {
        let interfaces = self.interfaces();
        interfaces.into_iter().next().unwrap_or_default()
    }
}

/// Returns `@ns` and the cookie of this thread's network namespace.
fn suffix() -> Result<String> {
    Ok(format!("@ns{}", netns::cookie()?))
}

/// Returns whether the kernel would accept this as a name (`dev_valid_name()`) or, with more
/// characters, as an alternative name of an interface.
fn is_name(name: &str) -> bool {
    /// `ALTIFNAMSIZ`, of which one byte is for the end.
    const BYTES: usize = 128;
    let is_odd = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    let is_length = (1..BYTES).contains(&name.len());
    is_length && ![".", ".."].contains(&name) && !name.bytes().any(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_kernel_accepts_are_interfaces() {
        for (name, expected) in [
            ("eth0", true),
            ("eth0.100", true),
            ("enp0s31f6np1-15", true),
            ("enp0s31f6np1-016", true),
            (&"x".repeat(127), true),
            (&"x".repeat(128), false),
            ("", false),
            ("..", false),
            ("../../etc", false),
            ("eth0:1", false),
            ("eth 0", false),
        ] {
            assert_eq!(is_name(name), expected, "{name:?}");
        }
    }
}
