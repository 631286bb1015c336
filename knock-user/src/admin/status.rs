//! `knock-user status`: how each instance of this network namespace is, whether or not its process
//! answers, and one exit code for all of them.

use std::{io::Write, time::Duration};

use anyhow::Result;

use super::{
    command::{At, written},
    facts, health, instances as find, offline,
    text::Told,
};
use crate::{
    control::{
        answers::{Status, Statuses},
        connection,
        protocol::{Answer, Incoming, Request},
    },
    host::os_error,
    interfaces::coverage,
    kernel::instance::Instance,
};

/// How long a process may take to say how it is, before it counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes how all instances are that are meant; returns whether all of them are in force.
///
/// # Errors
/// None can be asked, or the answer can't be written.
pub(super) fn run(at: &At, instances: &[Instance], out: &mut impl Write) -> Result<bool> {
    let statuses: Vec<_> = match instances {
        [only] => vec![status(only)?],
        // One that can't be asked says nothing about the others.
        all => all
            .iter()
            .map(|one| status(one).unwrap_or_else(|error| unasked(one, &error)))
            .collect(),
    };
    if statuses.is_empty() {
        return nothing(at, out);
    }
    let in_force = statuses.iter().all(|status| status.in_force);
    let text = match (statuses.as_slice(), at.json) {
        ([only], true) => serde_json::to_string(only)? + "\n",
        (_, true) => serde_json::to_string(&together(statuses))? + "\n",
        (all, false) => {
            let told = Told::here();
            let texts = all.iter().map(|status| told.status_text(status));
            texts.collect::<Vec<_>>().join("\n")
        }
    };
    written(&text, out)?;
    Ok(in_force)
}

fn nothing(at: &At, out: &mut impl Write) -> Result<bool> {
    let text = find::nothing(at.interface.as_deref());
    if !at.json {
        anyhow::bail!("{text}");
    }
    short("nothing", text, out)?;
    Ok(false)
}

/// Writes that it can't be told what is in force, as an object.
///
/// # Errors
/// It can't be written.
pub(super) fn unknown(error: &anyhow::Error, out: &mut impl Write) -> Result<()> {
    short("unknown", os_error::told(error), out)
}

fn short(kind: &str, text: String, out: &mut impl Write) -> Result<()> {
    let none = Statuses {
        shortfalls: vec![health::shortfall(kind, text)],
        ..Statuses::default()
    };
    written(&(serde_json::to_string(&none)? + "\n"), out)
}

fn together(instances: Vec<Status>) -> Statuses {
    Statuses {
        in_force: instances.iter().all(|status| status.in_force),
        shortfalls: instances
            .iter()
            .flat_map(|status| status.shortfalls.clone())
            .collect(),
        instances,
    }
}

/// What is known of an instance whose state can't be told.
fn unasked(instance: &Instance, error: &anyhow::Error) -> Status {
    let covered = coverage::of(instance, &instance.interfaces());
    Status {
        instance: instance.name().to_owned(),
        pid: instance.owner(),
        interfaces: covered.map(facts::interfaces).unwrap_or_default(),
        shortfalls: vec![health::shortfall("unknown", os_error::told(error))],
        ..Status::default()
    }
}

/// How an instance is. A process that does not answer is a shortfall, and what is pinned tells the
/// rest.
fn status(instance: &Instance) -> Result<Status> {
    let Some(stream) = connection::open(&instance.socket())? else {
        return offline::status(instance, None);
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    match connection::ask(&Incoming::Request(Request::Status {}), stream) {
        Ok((Answer::Status(status), _)) => Ok(status),
        Ok(_) => anyhow::bail!("the process answers something else: is it another version?"),
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
