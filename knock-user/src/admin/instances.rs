//! Which instance a subcommand is about.

use anyhow::{Result, bail};
use aya::programs::loaded_programs;
use clap::Args;
use serde::Deserialize;
use serde_json::Map;

use crate::{
    control::{Request, connection},
    host::{
        interface::{self, Interface},
        paths::MOUNT_POINT,
    },
    kernel::{barrier, entry::Entry, instance::Instance, persistence, tcx},
    model::problem::Misuse,
};

/// The instance that a subcommand is about, and the form of the answer.
#[derive(Args, Clone, Debug)]
pub struct At {
    /// Choose the instance by one of its interfaces; needed if several run
    #[arg(short = 'i', long = "iface", value_name = "IF")]
    pub interface: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Ask this process and no other, as a service manager does
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

/// The instance that a view is about.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Choose the instance by one of its interfaces; needed if several run
    #[arg(short = 'i', long = "iface", value_name = "IF")]
    pub interface: Option<String>,
}

/// The instances that count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Layouts {
    /// Those whose maps this version understands, and that protect or answer.
    This,
    /// All of which there are files.
    All,
}

/// Returns the instance that is meant, if there is one.
///
/// # Errors
/// There are several, or they can't be listed.
pub(super) fn find(at: &At, layouts: Layouts) -> Result<Option<Instance>> {
    match all(at, layouts)?.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        several => {
            let list: Vec<_> = several.iter().map(interfaces).collect();
            Err(Misuse(format!(
                "choose one with --iface: several instances of knock-user run here, which protect {}",
                list.join("; ")
            ))
            .into())
        }
    }
}

/// Returns the one instance that is meant.
///
/// # Errors
/// There is none, or there are several.
pub(crate) fn only(which: &Which) -> Result<Instance> {
    let at = At {
        interface: which.interface.clone(),
        json: false,
        pid: None,
    };
    match find(&at, Layouts::This)? {
        Some(instance) => Ok(instance),
        None => bail!("{}", nothing(at.interface.as_deref())),
    }
}

/// Returns whether all pins are seen. If not, interfaces may still have the program: then it is not true that nothing
/// is protected.
///
/// # Errors
/// An interface has the program, or the interfaces can't be listed.
pub(super) fn are_none_hidden(asked: Option<&str>) -> Result<()> {
    let is_ours = |id: u32| {
        let mut programs = loaded_programs().flatten();
        programs
            .any(|program| program.id() == id && program.name_as_str().is_some_and(Entry::is_named))
    };
    let mut all = interface::list()?;
    all.retain(|interface| {
        let placed = tcx::ingress(interface.index).unwrap_or_default();
        let placed = placed.iter().map(|placed| placed.program);
        asked.is_none_or(|name| interface.is_called(name))
            && interface.program.into_iter().chain(placed).any(is_ours)
    });
    let Some(Interface { name, .. }) = all.first() else {
        return Ok(());
    };
    bail!(
        "{name} has a program of knock-user, and its pins are not in {} here: another mount \
         namespace has them, and `ip netns exec` hides them; {}",
        MOUNT_POINT,
        persistence::cure()
    )
}

/// Returns the instances that are meant.
///
/// # Errors
/// They can't be listed.
pub(super) fn all(at: &At, layouts: Layouts) -> Result<Vec<Instance>> {
    let interface = at.interface.as_deref();
    let mut all = candidates(layouts)?;
    if let Some(interface) = interface {
        all.retain(|instance| protects(instance, interface));
    }
    if let Some(process) = at.pid {
        all.retain(|instance| connection::is_of(&instance.socket(), process));
    } else if all.is_empty() {
        are_none_hidden(interface)?;
    }
    Ok(all)
}

/// Returns the instances of this network namespace, and those of others; also files that a process
/// has left.
///
/// # Errors
/// They can't be listed.
pub(super) fn of_all_namespaces() -> Result<(Vec<Instance>, Vec<Instance>)> {
    let here = candidates(Layouts::All)?;
    let (_, pinned) = Instance::pinned()?;
    let mut elsewhere = Instance::listening()?;
    elsewhere.extend(pinned);
    elsewhere.retain(|instance| !here.contains(instance));
    elsewhere.sort();
    elsewhere.dedup();
    Ok((here, elsewhere))
}

/// Returns the error that there is none.
pub(super) fn nothing(interface: Option<&str>) -> String {
    match interface {
        Some(interface) => {
            format!(
                "no knock-user protects {interface}; `knock-user status` shows what is protected"
            )
        }
        None => "nothing is protected in this network namespace: start knock-user, as with \
                 `knock-user --iface eth0 --config FILE`"
            .to_owned(),
    }
}

fn candidates(layouts: Layouts) -> Result<Vec<Instance>> {
    let pinned = match layouts {
        Layouts::All => Instance::of_all_layouts(),
        Layouts::This => Instance::all_here(),
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
    if layouts == Layouts::This {
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

/// Returns what an instance protects, for people.
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

/// The part of an answer of `status` that names interfaces.
#[derive(Deserialize)]
struct StatusAnswer {
    status: InstanceStatus,
}

#[derive(Deserialize)]
struct InstanceStatus {
    interfaces: Vec<InterfaceName>,
}

#[derive(Deserialize)]
struct InterfaceName {
    name: String,
}

/// Returns the interfaces of an instance as its process reports them, for users who may not see pins.
fn asked_interfaces(instance: &Instance) -> Vec<String> {
    let Ok(Some(stream)) = connection::open(&instance.socket()) else {
        return Vec::new();
    };
    let request = Request {
        command: "status".to_owned(),
        fields: Map::new(),
    };
    let done = connection::ask(&request, stream).map(|(done, _)| serde_json::from_value(done));
    let Ok(Ok(StatusAnswer { status })) = done else {
        return Vec::new();
    };
    let interfaces = status.interfaces.into_iter();
    interfaces.map(|interface| interface.name).collect()
}
