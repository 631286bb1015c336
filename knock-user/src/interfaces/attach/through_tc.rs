//! Changes between the two modes at XDP by way of traffic control.

use anyhow::{Result, bail};

use super::{Attached, Moved, attached, move_over};
use crate::{
    host::interface::Interface,
    interfaces::admission::{Refusal, Way, Ways},
    kernel::{entry::Entry, instance::Instance, program::Programs, tcx},
    model::attach_mode::AttachMode,
};

/// Returns whether a program can run at traffic control while the mode of an interface changes.
pub(super) fn is_possible(programs: &impl Programs, interface: &Interface) -> bool {
    let entry = Entry::of(AttachMode::Tc, interface.first_header());
    tcx::is_available() == Some(true) && entry.is_some_and(|entry| programs.has(entry))
}

/// Switches between native and generic by way of traffic control, so that the program judges all the time: it is
/// attached there before the one place is left, and until the other one is taken. The kernel does not run a native
/// and a generic program at the same time.
///
/// # Errors
/// A [`Refusal`] if the kernel or the driver refuses; the program then has its previous mode again, or stays at traffic
/// control if that fails too.
pub(super) fn move_through_tc(
    programs: &mut impl Programs,
    asked_for: &str,
    interface: &Interface,
    current: AttachMode,
    ways: &Ways,
    instance: &Instance,
) -> Result<Attached> {
    let only = |mode| Ways {
        list: vec![Way::of(mode)],
        ..ways.clone()
    };
    let mut to =
        |from, ways: &Ways| move_over(programs, asked_for, interface, from, ways, instance);
    to(current, &only(AttachMode::Tc))?;
    let mut refused = None;
    for way in &ways.list {
        if way.mode == AttachMode::Tc {
            let because = way.because.clone().or(refused.as_ref().map(reason));
            let way = Way {
                because,
                ..way.clone()
            };
            return Ok(Attached {
                replaced: true,
                before: Some(current),
                ..attached(asked_for, interface, way)
            });
        }
        match to(AttachMode::Tc, &only(way.mode)) {
            Ok(Moved::Done(attached)) => {
                return Ok(Attached {
                    before: Some(current),
                    ..attached
                });
            }
            Ok(Moved::Stays | Moved::NeedsBarrier) => {}
            Err(error) => refused = Some(error.downcast::<Refusal>()?),
        }
    }
    to(AttachMode::Tc, &only(current))?;
    match refused {
        Some(refusal) => Err(refusal.into()),
        None => bail!(
            "there is no program for {} in mode {:?}",
            interface.name,
            ways.mode
        ),
    }
}

/// Returns why a place was not taken, in words that follow `because`.
fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Kernel { because, .. } => because.clone(),
        Refusal::NotEthernet { .. }
        | Refusal::BehindXdp { .. }
        | Refusal::Switch { .. }
        | Refusal::Occupied { .. }
        | Refusal::Hidden { .. }
        | Refusal::Above { .. } => format!("it {}", refusal.because()),
    }
}
