//! Configurations that were not confirmed: what a start does about those that an earlier process has
//! left on trial, or half put in place.
//!
//! The registry says what is on trial, until when, and what was in force before; the program of the
//! configuration before is pinned, and its text is kept ([`crate::apply::texts`]). Nothing of that depends on
//! a process, so any later one can go back, or continue the trial.

use anyhow::{Context as _, Result};
use aya::programs::ProgramInfo;

use crate::{
    apply::{AttachOptions, options::Run, plan::Plan, texts},
    config::{self, Checked},
    host::{
        clock::{self, Clock},
        interface::{self, Interface},
        os_error, privileges,
    },
    kernel::{
        instance::{Instance, Locked},
        pins, program,
        registry::{Fallback, Registry},
    },
};

/// What a start puts in place.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub plan: Plan,
    /// The way to put it in place.
    pub attach_options: AttachOptions,
    /// The configuration to go back to, if this start continues a trial.
    pub back: Option<Plan>,
}

/// Ends the trials that are over, of all instances of this network namespace that no process has:
/// that was promised, even if the start that comes next fails. What can't be done is reported.
pub fn end_overdue() {
    // The start reports missing capabilities.
    if privileges::check().is_err() {
        return;
    }
    for instance in Instance::all_here().unwrap_or_default() {
        let is_left = matches!(Registry::read(&instance.registry()), Ok(Some(registry)) if is_over(&registry));
        if is_left && instance.owner().is_none() {
            let done = instance.lock().and_then(|instance| recover(&instance));
            if let Err(error) = done {
                tracing::warn!("{}", os_error::told(&error));
            }
        }
    }
}

/// The instance whose last trial had this configuration and was not confirmed. It may have named
/// other interfaces than what is in force.
pub fn instance_of(plan: &Plan) -> Option<Instance> {
    let text = config::digest(&plan.checked.text);
    Instance::all_here().ok()?.into_iter().find(|instance| {
        let registry = Registry::read(&instance.registry()).ok().flatten();
        registry
            .is_some_and(|registry| registry.config == plan.path && registry.rejected == Some(text))
    })
}

/// What a start puts in place that was given a configuration, after what earlier processes have
/// left: a configuration that nobody confirmed does not get in force because of a restart.
///
/// # Errors
/// The configuration before can't be read any more, or it can't be put back.
pub fn start(instance: &Locked, plan: Plan, run: &Run) -> Result<Start> {
    recover(instance)?;
    let registry = Registry::read(&instance.registry()).ok().flatten();
    let attach_options = plan.attach_options(run);
    let given = Start {
        plan,
        attach_options,
        back: None,
    };
    // Whoever asks for a trial gets one.
    let is_kept = run.confirm.is_none() && !instance.linked().is_empty();
    let Some(registry) = registry.filter(|_| is_kept) else {
        return Ok(given);
    };
    let text = Some(config::digest(&given.plan.checked.text));
    if registry.is_on_trial() && !is_over(&registry) {
        return go_on(instance, &registry, given, run);
    }
    if registry.rejected.is_none() || registry.rejected != text {
        return Ok(given);
    }
    let file = &given.plan.checked.file;
    let before = texts::read(instance, &registry).with_context(|| {
        format!(
            "{file} was on trial and was not confirmed, so a restart does not put it in force, and \
             the configuration before it can't be read: what is in force stays; start with \
             `--confirm 60s` to try {file} again"
        )
    })?;
    tracing::warn!(
        "{file} was on trial and was not confirmed, so the configuration before it stays in force: \
         `knock-user reload --confirm 60s` tries {file} again, `knock-user reload` puts it in force"
    );
    let plan = kept(run, before)?;
    let attach_options = AttachOptions {
        rejected: text,
        ..plan.attach_options(run)
    };
    Ok(Start {
        plan,
        attach_options,
        back: None,
    })
}

/// Continues a trial.
fn go_on(instance: &Locked, registry: &Registry, given: Start, run: &Run) -> Result<Start> {
    let file = &given.plan.checked.file;
    let text = Some(config::digest(&given.plan.checked.text));
    let fallback = registry.fallback.as_ref();
    if fallback.is_some_and(|fallback| fallback.registry.text == text) && registry.text != text {
        go_back(instance, registry)?;
        tracing::warn!(
            "{file} is again what it was before the trial that an earlier process has left: that \
             trial has ended"
        );
        return Ok(given);
    }
    let plan = match registry.text == text {
        true => given.plan,
        false => {
            tracing::warn!(
                "{file} is not what is on trial: when that is confirmed or undone, `knock-user \
                 reload` puts {file} in force"
            );
            let on_trial = texts::read(instance, registry).with_context(|| {
                format!(
                    "what is on trial can't be read, and what is in force stays: start with \
                     `--confirm 60s` to try {file} in its place"
                )
            })?;
            kept(run, on_trial)?
        }
    };
    let back = fallback.map(|fallback| {
        let before = texts::read(instance, &fallback.registry);
        before.and_then(|before| Plan::of_kept(run, before))
    });
    // Without it, the end of the trial ends the process, too.
    let back = back.transpose().unwrap_or_else(|error| {
        tracing::warn!(
            "the configuration before the trial can't be read, so this process ends if the trial \
             does: {}",
            os_error::told(&error)
        );
        None
    });
    let until_ms = registry.confirm_by_ms.unwrap_or_default();
    tracing::warn!(
        "{} is on trial until {}, which an earlier process began: `knock-user confirm` keeps it",
        plan.checked.file,
        Clock::now().wall(until_ms)
    );
    let attach_options = AttachOptions {
        confirm_by_ms: registry.confirm_by_ms,
        ..plan.attach_options(run)
    };
    Ok(Start {
        plan,
        attach_options,
        back,
    })
}

/// A configuration whose text was kept, with what is unwise about it.
fn kept(run: &Run, checked: Checked) -> Result<Plan> {
    let plan = Plan::of_kept(run, checked)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    Ok(plan)
}

/// Whether a configuration was on trial until now and has not been confirmed.
fn is_over(registry: &Registry) -> bool {
    let until_ms = registry.confirm_by_ms;
    until_ms.is_some_and(|until_ms| until_ms <= clock::boot_ms())
}

/// Ends what a process that was killed has left half done.
///
/// # Errors
/// The pins or the registry can't be read or written, or the kernel refuses.
fn recover(instance: &Locked) -> Result<()> {
    // One that can't be read is reported when it is needed.
    let Ok(Some(registry)) = Registry::read(&instance.registry()) else {
        return Ok(());
    };
    let links = pins::links(instance)?;
    let mut attached = links.iter().filter(|link| link.index != 0);
    let is_whole = attached
        .clone()
        .all(|link| !registry.is_foreign(link.program));
    let is_untouched = attached.all(|link| registry.is_foreign(link.program));
    let Some(fallback) = &registry.fallback else {
        // The kernel side ends a first start that is on trial.
        if !registry.is_on_trial() && is_whole {
            finish_settling(instance, &registry)?;
        }
        return Ok(());
    };
    if !instance.program().exists() {
        return Ok(());
    }
    let config = registry.config.display();
    match (registry.is_on_trial(), is_over(&registry)) {
        (true, true) => {
            go_back(instance, &registry)?;
            tracing::warn!(
                "{config} was on trial and was not confirmed in time: the configuration before it \
                 is put back"
            );
        }
        (true, false) if !is_whole => {
            go_back(instance, &registry)?;
            tracing::warn!(
                "a process was ended while it put {config} in place on trial: the configuration \
                 before it is put back"
            );
        }
        (true, false) => {}
        (false, _) if is_whole => {
            let settled = Registry {
                fallback: None,
                ..registry.clone()
            };
            settled.write(&instance.registry())?;
            finish_settling(instance, &settled)?;
        }
        (false, _) if is_untouched => {
            before(&registry, fallback, true).write(&instance.registry())?
        }
        // Part of each is in force; the start puts one in place everywhere.
        (false, _) => {}
    }
    Ok(())
}

/// Does what is left to do when a configuration is settled.
fn finish_settling(instance: &Locked, registry: &Registry) -> Result<()> {
    let next = instance.next_program();
    if next.exists() {
        let info = ProgramInfo::from_pin(&next)
            .with_context(|| format!("looking at the program {}", next.display()))?;
        if registry.programs.contains(&info.id()) {
            let program = instance.program();
            std::fs::rename(&next, &program)
                .with_context(|| format!("pinning the program {}", program.display()))?;
        } else {
            pins::unlink(&next)?;
        }
    }
    texts::settle_if(instance, registry)
}

/// Goes back to the configuration before one that was not confirmed.
fn go_back(instance: &Locked, registry: &Registry) -> Result<()> {
    put_program_back(instance, &interface::list()?)?;
    let indices = registry.fallback.as_ref().map(|fallback| &fallback.indices);
    let indices = indices.cloned().unwrap_or_default();
    let_go(instance, registry, &indices, false)
}

/// Attaches the program of the configuration that was settled last wherever a program of this
/// instance is attached: one step for each interface.
///
/// # Errors
/// The kernel refuses.
pub fn put_program_back(instance: &Instance, all: &[Interface]) -> Result<()> {
    program::put_back(&instance.program(), all, instance)
}

/// Lets go of what only the configuration had that is gone back from: of interfaces other than those
/// with the numbers `indices`, and of its place in the registry. `is_moved_back` says whether the
/// programs are back in the driver, or behind it, where they ran before.
///
/// # Errors
/// The pins or the registry can't be written.
pub fn let_go(
    instance: &Instance,
    registry: &Registry,
    indices: &[u32],
    is_moved_back: bool,
) -> Result<()> {
    let fallback = registry.fallback.as_deref();
    let wanted = fallback.map_or(&[][..], |fallback| &fallback.registry.interfaces);
    for link in pins::links(instance)? {
        if !indices.contains(&link.index) && !wanted.contains(&link.name) {
            pins::unlink(&instance.link(&link.name))?;
        }
    }
    if let Some(fallback) = fallback {
        before(registry, fallback, is_moved_back).write(&instance.registry())?;
    }
    pins::unlink(&instance.next_program())?;
    texts::forget_next(instance)
}

/// What the registry says after going back.
fn before(registry: &Registry, fallback: &Fallback, is_moved_back: bool) -> Registry {
    let before = &fallback.registry;
    let rejected = match registry.is_on_trial() {
        true => registry.text,
        false => registry.rejected,
    };
    Registry {
        // Grants that were given meanwhile have its numbers.
        numbers: registry.numbers.clone(),
        // What is in force is not refused.
        rejected: rejected.filter(|text| before.text != Some(*text)),
        // The next start moves what is not where this mode says.
        mode: match is_moved_back {
            true => before.mode,
            false => registry.mode,
        },
        ..before.clone()
    }
}
