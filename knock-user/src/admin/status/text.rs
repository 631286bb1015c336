//! The text of a status.

use std::fmt::Write as _;

use super::answer::{Answer, InterfaceAnswer, OneTimeStatus, TablesAnswer};
use crate::{
    admin::text::{LocalTime, Side, short, table},
    interfaces::{coverage::CoverageState, preceding},
    model::{
        octets,
        text::{about, count, list},
    },
};

pub(super) fn render(status: &Answer, time: &LocalTime) -> Vec<String> {
    let mut rows = vec![["instance", &status.instance].map(str::to_owned)];
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), value]);
    let in_force = match status.in_force {
        true => "yes".to_owned(),
        false => format!("NO: {}", count(status.shortfalls.len() as u64, "shortfall")),
    };
    row("in force", in_force);
    for (index, shortfall) in status.shortfalls.iter().enumerate() {
        let name = if index == 0 { "shortfalls" } else { "" };
        row(name, shortfall.text.clone());
    }
    for (index, note) in status.notes.iter().enumerate() {
        row(if index == 0 { "notes" } else { "" }, note.clone());
    }
    // Of what can't be asked, no more is known than its interfaces.
    let is_known = !status.config.is_empty();
    if is_known {
        row("process", process(status, time));
        let doors = count(status.doors as u64, "door");
        row("configuration", format!("{}, {doors}", status.config));
    }
    for (index, interface) in status.interfaces.iter().enumerate() {
        let mode = interface.mode.as_deref().filter(|_| interface.attached);
        let how = match (mode, &interface.because) {
            (Some(mode), _) => attached(mode, interface),
            (None, Some(because)) if interface.state == CoverageState::Blocked.name() => {
                format!("BLOCKED: {because}")
            }
            (None, Some(because)) => {
                let known = interface.current_name.as_ref().unwrap_or(&interface.name);
                format!("NOT protected: {}", about(known, because))
            }
            (None, None) => "NOT protected".to_owned(),
        };
        let name = if index == 0 { "interfaces" } else { "" };
        let now = interface
            .current_name
            .as_ref()
            .map(|now| format!(" ({now})"));
        row(
            name,
            format!("{}{} {how}", interface.name, now.unwrap_or_default()),
        );
    }
    if !is_known {
        return table(&rows, [Side::Left, Side::Left]);
    }
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), value]);
    row("protected", list(&status.ports));
    if status.dry_run {
        row("dry run", "nothing is dropped".to_owned());
    }
    match status.trial_seconds {
        Some(left) if left > 0.0 && status.pid.is_none() => row(
            "on trial",
            format!(
                "{} left, and no process can take a confirmation",
                short(left)
            ),
        ),
        Some(left) if left > 0.0 => {
            row(
                "on trial",
                format!("{} left for `knock-user confirm`", short(left)),
            );
        }
        Some(_) => row("on trial", "no confirmation came in time".to_owned()),
        None => {}
    }
    for (index, one_time) in status.one_time.iter().enumerate() {
        let name = if index == 0 { "one-time" } else { "" };
        row(name, one_time_text(one_time));
    }
    row("grants", status.grants.to_string());
    row("connections", status.flows.to_string());
    if status.blocked > 0 {
        row("blocked", blocked(status.blocked));
    }
    if let Some(tables) = tables(&status.tables) {
        row("tables", tables);
    }
    if status.watchers > 0 {
        row("watching", status.watchers.to_string());
    }
    let counters = status.counters.iter();
    let counters = counters.map(|counter| [counter.count.to_string(), counter.text.clone()]);
    for (index, counter) in table(&counters.collect::<Vec<_>>(), [Side::Right, Side::Left])
        .into_iter()
        .enumerate()
    {
        row(if index == 0 { "counted" } else { "" }, counter);
    }
    table(&rows, [Side::Left, Side::Left])
}

/// Returns the mode of an attached interface, the reason for it, and what runs before the program.
fn attached(mode: &str, interface: &InterfaceAnswer) -> String {
    let because = interface.mode_because.as_ref();
    let because = because.map(|because| format!(" because {because}"));
    let behind = preceding::effect(&interface.preceding).map(|behind| format!("; {behind}"));
    format!(
        "{mode}{}{}",
        because.unwrap_or_default(),
        behind.unwrap_or_default()
    )
}

/// Describes the memory and the sizes of the tables, if a process knows them.
fn tables(tables: &TablesAnswer) -> Option<String> {
    let memory = octets::spell(tables.memory?);
    let failures = tables
        .failures
        .map(|failures| format!(", {failures} sources with failed attempts"));
    Some(format!(
        "{memory} in the kernel, room for {} first knocks, {} attempts, {} grants, {} connections{}",
        tables.first_knocks?,
        tables.attempts?,
        tables.grants,
        tables.flows,
        failures.unwrap_or_default()
    ))
}

fn blocked(prefixes: usize) -> String {
    match prefixes {
        1 => "1 prefix by a command".to_owned(),
        _ => format!("{prefixes} prefixes by commands"),
    }
}

fn process(status: &Answer, time: &LocalTime) -> String {
    let Some(pid) = status.pid else {
        return "none; the kernel still judges knocks and grants, but events are not reported and commands not run".to_owned();
    };
    let mut text = pid.to_string();
    if let Some(since) = status.since.as_deref() {
        let _infallible = write!(text, ", since {}", time.moment(since));
        if let Some(age) = time.age(since) {
            let _infallible = write!(text, " ({})", short(age.as_secs_f64()));
        }
    }
    text
}

/// Returns a line such as `ssh: line 12 is next, 988 left`.
fn one_time_text(one_time: &OneTimeStatus) -> String {
    let door = &one_time.door;
    match (one_time.next_line, &one_time.because) {
        (Some(line), _) => format!(
            "{door}: line {line} is next, {} left",
            one_time.sequences_left
        ),
        (None, Some(because)) => format!("{door}: nobody can open it: {because}"),
        (None, None) => format!("{door}: nobody can open it"),
    }
}
