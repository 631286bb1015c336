//! The client's end: the status of all instances that are meant.

use std::{io::Write, time::Duration};

use anyhow::Result;

use super::{
    answer::{Answer, Shortfall, Statuses},
    facts, health, offline,
};
use crate::{
    admin::{
        command::{Command, exchange, written},
        instances::{self, At},
        text::{LocalTime, lines},
    },
    control::connection,
    host::os_error,
    interfaces::{admission, coverage},
    kernel::instance::Instance,
};

/// How long a process may take to answer, before it counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes the status of all instances that are meant; returns whether all of them are in force.
///
/// # Errors
/// None can be asked, or the answer can't be written.
pub(super) fn run<C: Command<Answer = Answer>>(
    command: &C,
    instances: &[Instance],
    out: &mut impl Write,
) -> Result<bool> {
    let statuses: Vec<_> = match instances {
        [only] => vec![status(command, only)?],
        // The others can be asked even if one can't.
        all => all
            .iter()
            .map(|one| status(command, one).unwrap_or_else(|error| unasked(one, &error)))
            .collect(),
    };
    if statuses.is_empty() {
        return nothing(command.at(), out);
    }
    let in_force = statuses.iter().all(|status| status.in_force);
    let text = match (statuses.as_slice(), command.at().json) {
        ([only], true) => serde_json::to_string(only)? + "\n",
        (_, true) => serde_json::to_string(&together(statuses))? + "\n",
        (all, false) => {
            let time = LocalTime::now();
            let texts = all.iter().map(|status| lines(C::render(status, &time)));
            texts.collect::<Vec<_>>().join("\n")
        }
    };
    written(&text, out)?;
    Ok(in_force)
}

/// Names programs that run before ours: a process may have dropped the capability that this takes.
fn name_preceding(status: &mut Answer) {
    for interface in &mut status.interfaces {
        for one in &mut interface.preceding {
            one.name = one.name.take().or_else(|| admission::name_of(one.program));
        }
        let text = health::preceded_text(interface);
        let name = Some(&interface.name);
        let is_it = |short: &&mut Shortfall| {
            short.kind == health::PRECEDED && short.interface.as_ref() == name
        };
        if let Some(shortfall) = status.shortfalls.iter_mut().find(is_it)
            && let Some(text) = text
        {
            shortfall.text = text;
        }
    }
}

fn nothing(at: &At, out: &mut impl Write) -> Result<bool> {
    let text = instances::nothing(at.interface.as_deref());
    if !at.json {
        anyhow::bail!("{text}");
    }
    short("nothing", text, out)?;
    Ok(false)
}

/// Writes that what is in force is unknown, as an object.
///
/// # Errors
/// It can't be written.
pub(super) fn unknown(error: &anyhow::Error, out: &mut impl Write) -> Result<()> {
    short("unknown", os_error::describe(error), out)
}

fn short(kind: &str, text: String, out: &mut impl Write) -> Result<()> {
    let none = Statuses {
        shortfalls: vec![health::shortfall(kind, text)],
        ..Statuses::default()
    };
    written(&(serde_json::to_string(&none)? + "\n"), out)
}

fn together(instances: Vec<Answer>) -> Statuses {
    Statuses {
        in_force: instances.iter().all(|status| status.in_force),
        shortfalls: instances
            .iter()
            .flat_map(|status| status.shortfalls.clone())
            .collect(),
        instances,
    }
}

/// Returns what is known of an instance that can't be asked.
fn unasked(instance: &Instance, error: &anyhow::Error) -> Answer {
    let covered = coverage::of(instance, &instance.interfaces());
    Answer {
        instance: instance.name().to_owned(),
        pid: instance.owner(),
        interfaces: covered.map(facts::interfaces).unwrap_or_default(),
        shortfalls: vec![health::shortfall("unknown", os_error::describe(error))],
        ..Answer::default()
    }
}

/// Returns the status of an instance. A process that does not answer is a shortfall, and the pins have
/// the rest.
///
/// # Errors
/// Neither the process nor the pins can be asked.
pub(super) fn status<C: Command<Answer = Answer>>(
    command: &C,
    instance: &Instance,
) -> Result<Answer> {
    let Some(stream) = connection::open(&instance.socket())? else {
        return offline::status(instance, None);
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    match exchange::<C>(&command.request(), stream) {
        Ok((mut status, _)) => {
            name_preceding(&mut status);
            Ok(status)
        }
        Err(error) if error.is::<connection::NoAnswer>() => {
            let owner = instance.owner();
            let mut status = offline::status(instance, owner)?;
            let Some(pid) = owner else {
                return Ok(status);
            };
            let is_attached = status.interfaces.iter().any(|one| one.attached);
            let meanwhile = match is_attached {
                true => "; packets are judged meanwhile",
                false => "",
            };
            let text = format!(
                "process {pid} does not answer within {} s: `kill` it and start it again{meanwhile}",
                PATIENCE.as_secs()
            );
            status.shortfalls.push(health::shortfall("no-answer", text));
            status.in_force = false;
            Ok(status)
        }
        Err(error) => Err(error),
    }
}
