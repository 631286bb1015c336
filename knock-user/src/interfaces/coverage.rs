//! Whether what is asked for is in force: for each interface that is named, what is true of it now.
//!
//! Plain questions to the kernel and bpffs: it does not matter which process asks.

use anyhow::Result;

use crate::{
    host::interface::{self, Interface},
    interfaces::{
        admission::{self, Refusal},
        watchdog::{self, Shortfall},
    },
    kernel::{
        barrier,
        instance::Instance,
        pins::{self, Pinned},
    },
};

/// An interface that is asked for, and what is true of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Coverage {
    /// The name under which it is asked for.
    pub name: String,
    /// The name that it has, if that is another: it has an alternative name, or was renamed.
    pub now: Option<String>,
    /// Its number; none if it is not there.
    pub index: Option<u32>,
    /// What is true of it.
    pub state: State,
}

/// What is true of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// Our program is attached.
    Protected {
        /// Whether the driver runs it.
        native: bool,
        /// The id of the program.
        program: u32,
        /// Whether a pinned link keeps it; otherwise only the process does that attached it.
        is_pinned: bool,
    },
    /// Our program is attached, and what arrives does not get to it, or not as what it can judge.
    Bypassed {
        /// Whether the driver is to run it.
        native: bool,
        /// What was found, and since when it is so.
        shortfall: Shortfall,
    },
    /// Nothing gets in through it: its gate was left shut.
    Blocked,
    /// There is no such interface.
    Absent,
    /// It can't be protected.
    Refused(Refusal),
    /// It could be protected, and nothing of ours is attached.
    Missing,
}

impl State {
    /// One word for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Protected { .. } => "protected",
            Self::Bypassed { .. } => "bypassed",
            Self::Blocked => "blocked",
            Self::Absent => "absent",
            Self::Refused(_) => "refused",
            Self::Missing => "missing",
        }
    }

    /// Whether the packets of the interface are judged.
    pub const fn is_protected(&self) -> bool {
        matches!(self, Self::Protected { .. })
    }

    /// Why they are not; none if they are.
    pub fn because(&self) -> Option<String> {
        match self {
            Self::Protected { .. } => None,
            Self::Bypassed { shortfall, .. } => Some(watchdog::shortfall_text(shortfall.finding)),
            Self::Blocked => Some(
                "nothing gets in through it, not even with a grant, since a change of its mode \
                 did not come to its end: reload, or start knock-user again; `knock-user detach` \
                 opens it"
                    .to_owned(),
            ),
            Self::Absent => Some("there is no such interface".to_owned()),
            Self::Refused(refusal) => Some(refusal.to_string()),
            Self::Missing => Some("the program is not attached".to_owned()),
        }
    }
}

/// What is true of each of these names, which belong to an instance.
///
/// # Errors
/// The kernel does not tell, or the pins can't be read.
pub fn of(instance: &Instance, names: &[String]) -> Result<Vec<Coverage>> {
    let links = pins::links(instance)?;
    let all = interface::list()?;
    let mut found = among(names, &links, &all);
    note_barriers(instance, &mut found, &all);
    Ok(found)
}

/// Notes which of these interfaces have a barrier that is shut, whatever else is true of them.
pub fn note_barriers(instance: &Instance, found: &mut [Coverage], all: &[Interface]) {
    for one in found {
        let on = all.iter().find(|on| Some(on.index) == one.index);
        if on.is_some_and(|on| barrier::is_shut(on, instance)) {
            one.state = State::Blocked;
        }
    }
}

/// What is true of each of these names, by these pinned links and these interfaces.
pub fn among(names: &[String], links: &[Pinned], all: &[Interface]) -> Vec<Coverage> {
    let each = names.iter().map(|name| {
        let found = interface::named(name, all).or_else(|| renamed(name, names, links, all));
        Coverage {
            name: name.clone(),
            now: found
                .filter(|interface| interface.name != *name)
                .map(|interface| interface.name.clone()),
            index: found.map(|interface| interface.index),
            state: found.map_or(State::Absent, |interface| state(interface, links, all)),
        }
    });
    each.collect()
}

/// The interface that had this name when it was attached to, and has another one now, for which
/// none of these names asks.
pub fn renamed<'i>(
    name: &str,
    names: &[String],
    links: &[Pinned],
    all: &'i [Interface],
) -> Option<&'i Interface> {
    let link = links.iter().find(|link| link.name == name)?;
    let found = all.iter().find(|interface| link.holds(interface))?;
    let is_asked_for = names.iter().any(|name| found.is_called(name));
    (!is_asked_for).then_some(found)
}

fn state(interface: &Interface, links: &[Pinned], all: &[Interface]) -> State {
    let is_ours = pins::is_ours(links, interface);
    match (admission::admit(interface, all, is_ours), interface.program) {
        (Err(refusal), _) => State::Refused(refusal),
        (Ok(()), Some(program)) if is_ours => State::Protected {
            native: interface.native,
            program,
            is_pinned: true,
        },
        (Ok(()), _) => State::Missing,
    }
}
