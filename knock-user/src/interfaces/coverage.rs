//! Reports for each configured interface whether the program is in force on it.
//!
//! It only reads from the kernel and bpffs, so any process can ask.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    host::interface::{self, Interface},
    interfaces::{
        admission::{self, Refusal},
        watchdog::{self, FrameShortfall},
    },
    kernel::{
        barrier,
        instance::Instance,
        pins::{self, Pinned},
        registry::{ModeReason, Registry},
        tcx::Placed,
    },
    model::{attach_mode::AttachMode, settings::Mode},
};

/// A configured interface and its state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Coverage {
    /// Its configured name.
    pub name: String,
    /// Its current name, if it was renamed or is configured by an alternative name.
    pub now: Option<String>,
    /// Its number; none if it does not exist.
    pub index: Option<u32>,
    /// Its state.
    pub state: CoverageState,
}

/// The state of a configured interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CoverageState {
    /// Our program is attached.
    Protected {
        /// Where it runs.
        mode: AttachMode,
        /// The reason for that, if `auto` chose it and the driver does not run it.
        chosen: Option<String>,
        /// The id of the program.
        program: u32,
        /// Whether a pinned link keeps it, and not only the process that attached it.
        is_pinned: bool,
        /// The programs of others that run before it at traffic control: what they drop, pass or
        /// redirect is not judged.
        behind: Vec<Placed>,
    },
    /// Our program is attached, but received frames do not reach it, or not in a form that it can
    /// judge.
    Bypassed {
        /// Where it should run.
        mode: AttachMode,
        /// The finding, and its time.
        shortfall: FrameShortfall,
    },
    /// All its packets are dropped: its barrier was left shut.
    Blocked,
    /// It does not exist.
    Absent,
    /// It can't be protected.
    Refused(Refusal),
    /// It could be protected, but no program of ours is attached.
    Missing,
}

impl CoverageState {
    /// The words for JSON and metrics.
    pub const NAMES: [&str; 6] = [
        "protected",
        "bypassed",
        "blocked",
        "absent",
        "refused",
        "missing",
    ];

    /// Returns the word for JSON.
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

    /// Returns whether the packets of the interface are judged.
    pub const fn is_protected(&self) -> bool {
        matches!(self, Self::Protected { .. })
    }

    /// Returns the reason why they are not; none if they are.
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

/// Returns the state of each of these names, which belong to an instance.
///
/// # Errors
/// The interfaces can't be listed, or the pins can't be read.
pub fn of(instance: &Instance, names: &[String]) -> Result<Vec<Coverage>> {
    let registry = Registry::read(&instance.registry()).ok().flatten();
    let registry = registry.unwrap_or_default();
    let mode = registry.mode.unwrap_or_default();
    let links = pins::links(instance)?;
    let all = interface::list()?;
    let mut found = among(names, mode, &links, &all);
    note_reasons(&registry.chosen, &mut found);
    note_barriers(instance, &mut found, &all);
    Ok(found)
}

/// Marks interfaces whose barrier is shut as blocked, whatever else is true of them.
pub fn note_barriers(instance: &Instance, found: &mut [Coverage], all: &[Interface]) {
    for one in found {
        let on = all.iter().find(|on| Some(on.index) == one.index);
        if on.is_some_and(|on| barrier::is_shut(on, instance)) {
            one.state = CoverageState::Blocked;
        }
    }
}

/// Notes why `auto` chose the mode of interfaces, as recorded at the choice. What would be chosen now may differ.
pub fn note_reasons(chosen: &BTreeMap<String, ModeReason>, found: &mut [Coverage]) {
    for one in found {
        if let CoverageState::Protected {
            mode,
            chosen: reason,
            ..
        } = &mut one.state
        {
            let recorded = chosen
                .get(&one.name)
                .filter(|recorded| recorded.is_for(*mode));
            *reason = recorded.map(|recorded| recorded.because.clone());
        }
    }
}

/// Returns the state of each of these names, given the configured mode, the pinned links and all
/// interfaces.
pub fn among(names: &[String], mode: Mode, links: &[Pinned], all: &[Interface]) -> Vec<Coverage> {
    let coverage = |name: &String| {
        let found = interface::named(name, all).or_else(|| renamed(name, names, links, all));
        Coverage {
            name: name.clone(),
            now: found
                .filter(|interface| interface.name != *name)
                .map(|interface| interface.name.clone()),
            index: found.map(|interface| interface.index),
            state: found.map_or(CoverageState::Absent, |interface| {
                state(interface, mode, links, all)
            }),
        }
    };
    names.iter().map(coverage).collect()
}

/// Returns the interface that had this name when it was attached to and was renamed since, unless
/// its new name is configured.
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

/// Returns the reason why our program, which is attached to an interface at this place, can't read its packets and
/// drops them; none if it can. `links` are those of the instance.
pub fn unreadable(
    interface: &Interface,
    ours: Option<AttachMode>,
    links: &[Pinned],
) -> Option<Refusal> {
    let is_ours = |id: u32| links.iter().any(|link| link.program == id);
    let is_foreign = interface.program.is_some_and(|id| !is_ours(id));
    match ours {
        Some(AttachMode::Tc) if is_foreign => admission::hides_headers(interface),
        Some(AttachMode::Tc | AttachMode::Native | AttachMode::Generic) | None => None,
    }
}

fn state(interface: &Interface, mode: Mode, links: &[Pinned], all: &[Interface]) -> CoverageState {
    let link = links.iter().find(|link| link.holds(interface));
    let ours = link.map(|link| link.mode(interface));
    if let Some(refusal) = unreadable(interface, ours, links) {
        return CoverageState::Refused(refusal);
    }
    match (admission::admit(interface, all, mode, ours), link) {
        (Err(refusal), _) => CoverageState::Refused(refusal),
        (Ok(_), Some(link)) => CoverageState::Protected {
            mode: link.mode(interface),
            chosen: None,
            program: link.program,
            is_pinned: true,
            behind: link.before().to_vec(),
        },
        (Ok(_), None) => CoverageState::Missing,
    }
}
