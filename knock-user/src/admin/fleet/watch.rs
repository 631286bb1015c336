//! `knock-user fleet watch`: what opens and closes at all hosts of the group.

use std::io::{BufRead as _, Write};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    super::{
        command::{self, SubcommandOutcome},
        instances::At,
        text::{LocalTime, lines},
        watch,
    },
    status::Answer,
};
use crate::{console::EventKind, control::connection, kernel::instance::Instance};

/// Prints the events of doors of the group until the process ends.
///
/// # Errors
/// The process can't be asked, or has ended.
pub(super) fn run(
    instance: &Instance,
    group: &Answer,
    at: &At,
    out: &mut impl Write,
) -> Result<SubcommandOutcome> {
    let Some(stream) = connection::open(&instance.socket())? else {
        return Err(command::no_process(instance));
    };
    let request = watch::Request::of_objects();
    let (_, mut rest) = command::exchange::<watch::Args>(&request, stream)?;
    rest.get_ref().set_read_timeout(None)?;
    let mut line = Vec::new();
    while rest.read_until(b'\n', &mut line).context("watching")? > 0 {
        let event = serde_json::from_slice(&line).ok();
        if let Some(event) = event.and_then(|event| of_group(event, group)) {
            let text = match at.json {
                true => event.to_string() + "\n",
                false => lines(vec![text(&event, &LocalTime::now())]),
            };
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                return command::ended_by_reader(error).map(|()| SubcommandOutcome::Done);
            }
        }
        line.clear();
    }
    bail!("the process has ended")
}

/// Returns an event with the name of the host where it happened first, if it is about the group.
fn of_group(mut event: Value, group: &Answer) -> Option<Value> {
    let kind = EventKind::named(event["event"].as_str()?)?;
    let is_of_door = [EventKind::Opened, EventKind::Refreshed, EventKind::Closed].contains(&kind);
    let is_about = match event["door"].as_str().filter(|_| is_of_door) {
        Some(door) => group.doors.iter().any(|own| own == door),
        None => [EventKind::InSync, EventKind::CutOff].contains(&kind),
    };
    let by = event["by"].as_str().and_then(|by| by.strip_prefix("host "));
    let host = by.unwrap_or(&group.host).to_owned();
    event
        .as_object_mut()?
        .insert("host".to_owned(), host.into());
    is_about.then_some(event)
}

fn text(event: &Value, time: &LocalTime) -> String {
    let word = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
    let why = event["reason"].as_str().or(event["because"].as_str());
    format!(
        "{} {} {} {} {} {}",
        time.moment(&word("time")),
        word("host"),
        word("event"),
        word("source"),
        word("door"),
        why.unwrap_or_default()
    )
}
