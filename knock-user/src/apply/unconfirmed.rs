//! Handles configurations that an earlier process left on trial, or half put in force.
//!
//! The registry has the configuration on trial, its end, and the previous configuration. The
//! program of the previous configuration is pinned and its text is stored
//! ([`crate::apply::texts`]). None of this depends on a process, so any later one can roll back or
//! continue the trial.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::ProgramInfo;

use crate::{
    apply::{
        options::{AttachOptions, Run},
        plan::Plan,
        texts,
    },
    config::{self, Checked},
    host::{
        clock::{self, Clock},
        os_error, privileges,
    },
    interfaces::attach,
    kernel::{
        entry::Entry,
        instance::Instance,
        lock::Locked,
        pins,
        registry::{Fallback, Registry},
    },
};

/// The configuration that a start puts in force.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub plan: Plan,
    /// The way to attach it.
    pub attach_options: AttachOptions,
    /// The configuration to roll back to, if this start continues a trial.
    pub back: Option<Plan>,
}

/// Rolls back expired trials of all instances of this network namespace that no process serves: the
/// rollback was promised, even if the start that follows fails. Failures are logged.
pub fn end_overdue() {
    // The start reports missing capabilities.
    if privileges::check().is_err() {
        return;
    }
    for instance in Instance::all_here().unwrap_or_default() {
        let is_left = matches!(Registry::read(&instance.registry()), Ok(Some(registry)) if is_expired(&registry));
        if is_left && instance.owner().is_none() {
            let done = instance.lock().and_then(|instance| recover(&instance));
            if let Err(error) = done {
                tracing::warn!("{}", os_error::describe(&error));
            }
        }
    }
}

/// Returns the instance whose last trial had this configuration and was not confirmed. It may have
/// named other interfaces than the configuration in force.
pub fn instance_of(plan: &Plan) -> Option<Instance> {
    let text = config::digest(&plan.checked.text);
    Instance::all_here().ok()?.into_iter().find(|instance| {
        let registry = Registry::read(&instance.registry()).ok().flatten();
        registry
            .is_some_and(|registry| registry.config == plan.path && registry.rejected == Some(text))
    })
}

/// Chooses what a start puts in force, after what earlier processes left: a restart does not put an
/// unconfirmed configuration in force.
///
/// # Errors
/// The previous configuration can't be read any more or can't be restored.
pub fn start(instance: &Locked, plan: Plan, run: &Run) -> Result<Start> {
    recover(instance)?;
    let registry = Registry::read(&instance.registry()).ok().flatten();
    let attach_options = plan.attach_options(run);
    let given = Start {
        plan,
        attach_options,
        back: None,
    };
    // A trial that is asked for is always started.
    let is_kept = run.confirm.is_none() && !instance.linked().is_empty();
    let Some(registry) = registry.filter(|_| is_kept) else {
        return Ok(given);
    };
    let text = Some(config::digest(&given.plan.checked.text));
    if registry.is_on_trial() && !is_expired(&registry) {
        return continue_trial(instance, &registry, given, run);
    }
    if registry.rejected.is_none() || registry.rejected != text {
        return Ok(given);
    }
    let file = &given.plan.checked.file;
    let before = texts::read(instance, &registry).with_context(|| {
        format!(
            "{file} was on trial and was not confirmed, so a restart does not put it in force, and \
             the previous configuration can't be read: what is in force stays; start with \
             `--confirm 60s` to try {file} again"
        )
    })?;
    tracing::warn!(
        "{file} was on trial and was not confirmed, so the previous configuration stays in force: \
         `knock-user reload --confirm 60s` tries {file} again, `knock-user reload` puts it in force"
    );
    let plan = plan_with_warnings(run, before)?;
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

/// Continues the trial that an earlier process began.
fn continue_trial(
    instance: &Locked,
    registry: &Registry,
    given: Start,
    run: &Run,
) -> Result<Start> {
    let file = &given.plan.checked.file;
    let text = Some(config::digest(&given.plan.checked.text));
    let fallback = registry.fallback.as_ref();
    if fallback.is_some_and(|fallback| fallback.registry.text == text) && registry.text != text {
        roll_back(instance, registry)?;
        tracing::warn!(
            "{file} again has the text from before the trial that an earlier process began: the \
             trial was rolled back"
        );
        return Ok(given);
    }
    let plan = match registry.text == text {
        true => given.plan,
        false => {
            tracing::warn!(
                "{file} differs from the configuration on trial: when the trial has ended, `knock-user \
                 reload` puts {file} in force"
            );
            let on_trial = texts::read(instance, registry).with_context(|| {
                format!(
                    "the configuration on trial can't be read, so the one in force stays: start with \
                     `--confirm 60s` to try {file} instead"
                )
            })?;
            plan_with_warnings(run, on_trial)?
        }
    };
    let back = fallback.map(|fallback| {
        let before = texts::read(instance, &fallback.registry);
        before.and_then(|before| Plan::from_stored(run, before))
    });
    // Without it, this process ends when the trial does.
    let back = back.transpose().unwrap_or_else(|error| {
        tracing::warn!(
            "the configuration before the trial can't be read, so this process ends if the trial \
             expires: {}",
            os_error::describe(&error)
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

/// Reads a configuration from its stored text and logs its warnings.
fn plan_with_warnings(run: &Run, checked: Checked) -> Result<Plan> {
    let plan = Plan::from_stored(run, checked)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    Ok(plan)
}

/// Returns whether a trial has expired without confirmation.
fn is_expired(registry: &Registry) -> bool {
    let until_ms = registry.confirm_by_ms;
    until_ms.is_some_and(|until_ms| until_ms <= clock::boot_ms())
}

/// Completes or undoes what a killed process left unfinished.
///
/// # Errors
/// The pins or the registry can't be read or written, or the kernel refuses.
fn recover(instance: &Locked) -> Result<()> {
    // An unreadable registry is reported when it is needed.
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
    if !instance.has_program() {
        return Ok(());
    }
    let config = registry.config.display();
    match (registry.is_on_trial(), is_expired(&registry)) {
        (true, true) => {
            roll_back(instance, &registry)?;
            tracing::warn!(
                "{config} was on trial and was not confirmed in time: the previous configuration \
                 was restored"
            );
        }
        (true, false) if !is_whole => {
            roll_back(instance, &registry)?;
            tracing::warn!(
                "knock-user ended while it put {config} on trial: the previous configuration \
                 was restored"
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
            registry_before(&registry, fallback, true).write(&instance.registry())?
        }
        // Each is in force on some interfaces; the start puts one in force everywhere.
        (false, _) => {}
    }
    Ok(())
}

/// Completes the commit of a configuration.
fn finish_settling(instance: &Locked, registry: &Registry) -> Result<()> {
    let is_known = |path: &Path| -> Result<bool> {
        let info = ProgramInfo::from_pin(path)
            .with_context(|| format!("looking at the program {}", path.display()))?;
        Ok(registry.programs.contains(&info.id()))
    };
    for entry in Entry::ALL {
        let next = instance.next_program(entry);
        if next.exists() && is_known(&next)? {
            let program = instance.program(entry);
            std::fs::rename(&next, &program)
                .with_context(|| format!("pinning the program {}", program.display()))?;
        }
        pins::unlink(&next)?;
    }
    // The previous configuration may have had a program for a place that this one does not use.
    let mut known = Vec::new();
    let mut left = Vec::new();
    for program in Entry::ALL.map(|entry| instance.program(entry)) {
        if program.exists() {
            match is_known(&program)? {
                true => known.push(program),
                false => left.push(program),
            }
        }
    }
    if !known.is_empty() {
        for program in left {
            pins::unlink(&program)?;
        }
    }
    texts::settle_if(instance, registry)
}

/// Restores the configuration before the trial.
fn roll_back(instance: &Locked, registry: &Registry) -> Result<()> {
    attach::restore(instance)?;
    let indices = registry.fallback.as_ref().map(|fallback| &fallback.indices);
    let indices = indices.cloned().unwrap_or_default();
    discard_trial(instance, registry, &indices, false)
}

/// Removes what only the rolled-back configuration had: links to interfaces other than those with
/// the numbers `indices`, and its place in the registry. `is_moved_back` states whether the
/// programs have their previous attach modes again.
///
/// # Errors
/// The pins or the registry can't be written.
pub fn discard_trial(
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
        registry_before(registry, fallback, is_moved_back).write(&instance.registry())?;
    }
    pins::forget_next(instance)?;
    texts::forget_next(instance)
}

/// Returns the registry after a rollback.
fn registry_before(registry: &Registry, fallback: &Fallback, is_moved_back: bool) -> Registry {
    let before = &fallback.registry;
    let rejected = match registry.is_on_trial() {
        true => registry.text,
        false => registry.rejected,
    };
    Registry {
        // Grants given during the trial have its door numbers.
        numbers: registry.numbers.clone(),
        // A text that is in force is never rejected.
        rejected: rejected.filter(|text| before.text != Some(*text)),
        // The next start switches interfaces whose mode differs from this.
        mode: match is_moved_back {
            true => before.mode,
            false => registry.mode,
        },
        ..before.clone()
    }
}
