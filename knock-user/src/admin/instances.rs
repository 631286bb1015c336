//! Which instance is meant.

use anyhow::{Result, bail};
use aya::programs::loaded_programs;

use super::command::Ask;
use crate::{
    control::{
        connection,
        protocol::{Answer, Incoming, Request},
    },
    host::{
        interface::{self, Interface},
        paths::MOUNT_POINT,
    },
    kernel::{barrier, instance::Instance, persistence},
    model::problem::Misuse,
};

/// The instance that is meant; none if there is none and that is as it should be.
pub(super) fn find(ask: &Ask, interface: Option<&str>) -> Result<Option<Instance>> {
    let all = all(ask, interface)?;
    match (all.as_slice(), interface) {
        ([only], _) => Ok(Some(only.clone())),
        ([], _) if matches!(ask, Ask::Detach(_)) => Ok(None),
        ([], interface) => bail!("{}", nothing(interface)),
        (several, _) => {
            let list: Vec<_> = several.iter().map(interfaces).collect();
            Err(Misuse(format!(
                "choose one with --iface: several instances of knock-user run here, which protect {}",
                list.join("; ")
            ))
            .into())
        }
    }
}

/// Where pins are not seen, interfaces may still have the program: then it is not true that nothing
/// is protected.
fn are_none_hidden(asked: Option<&str>) -> Result<()> {
    // The name of the program in the kernel object.
    const PROGRAM: &str = "knock";
    let is_ours = |id: u32| {
        let mut programs = loaded_programs().flatten();
        programs.any(|program| program.id() == id && program.name_as_str() == Some(PROGRAM))
    };
    let mut all = interface::list()?;
    all.retain(|interface| {
        asked.is_none_or(|name| interface.is_called(name)) && interface.program.is_some_and(is_ours)
    });
    let Some(Interface { name, .. }) = all.first() else {
        return Ok(());
    };
    bail!(
        "{name} has an XDP program of knock-user, and its pins are not in {} here: another mount \
         namespace has them, and `ip netns exec` hides them; {}",
        MOUNT_POINT,
        persistence::cure()
    )
}

/// The instances that are meant.
pub(super) fn all(ask: &Ask, interface: Option<&str>) -> Result<Vec<Instance>> {
    let mut all = candidates(ask)?;
    if let Some(interface) = interface {
        all.retain(|instance| protects(instance, interface));
    }
    if let Some(process) = ask.process() {
        all.retain(|instance| connection::is_of(&instance.socket(), process));
    } else if all.is_empty() {
        are_none_hidden(interface)?;
    }
    Ok(all)
}

/// That there is none.
pub(super) fn nothing(interface: Option<&str>) -> String {
    match interface {
        Some(interface) => {
            format!(
                "no knock-user protects {interface}; `knock-user status` shows what is protected"
            )
        }
        None => "no knock-user protects anything in this network namespace: `knock-user --iface \
                 eth0 --config FILE` does"
            .to_owned(),
    }
}

fn candidates(ask: &Ask) -> Result<Vec<Instance>> {
    let pinned = if matches!(ask, Ask::Detach(_)) {
        // Also what only another version could take over.
        Instance::of_all_layouts()
    } else {
        Instance::all_here()
    };
    let mut all = Instance::listening_here().unwrap_or_default();
    match pinned {
        Ok(pinned) => all.extend(pinned),
        // Those who may ask need not be allowed to see pins.
        Err(_) if !all.is_empty() => {}
        Err(error) => return Err(error),
    }
    all.sort();
    all.dedup();
    // Files alone, which a process has left, protect nothing and answer nothing. They are removed
    // with everything else.
    if !matches!(ask, Ask::Detach(_)) {
        all.retain(|instance| {
            // A gate that is shut lets nothing in, with or without a link.
            !instance.linked().is_empty()
                || barrier::are_any_shut(instance)
                || connection::is_listened_to(&instance.socket())
        });
    }
    Ok(all)
}

fn protects(instance: &Instance, interface: &str) -> bool {
    instance.has_any(&[interface.to_owned()])
        || asked_interfaces(instance)
            .iter()
            .any(|name| name == interface)
}

/// What an instance protects, for people.
pub(super) fn interfaces(instance: &Instance) -> String {
    let mut names = instance.interfaces();
    if names.is_empty() {
        names = asked_interfaces(instance);
    }
    match names.as_slice() {
        [] => instance.name().to_owned(),
        names => names.join(" and "),
    }
}

/// The interfaces of an instance as its process tells them, for those who may not see pins.
fn asked_interfaces(instance: &Instance) -> Vec<String> {
    let Ok(Some(stream)) = connection::open(&instance.socket()) else {
        return Vec::new();
    };
    let Ok((Answer::Status(status), _)) =
        connection::ask(&Incoming::Request(Request::Status {}), stream)
    else {
        return Vec::new();
    };
    let interfaces = status.interfaces.into_iter();
    interfaces.map(|interface| interface.name).collect()
}
