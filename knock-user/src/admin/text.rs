//! Answers for people.

use std::{fmt::Write as _, time::Duration};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use knock_sequence::duration::spell_short;

use crate::{
    control::{
        answers::{Detached, Granted, Grants, OneTime, Reloaded, Revoked, Status},
        protocol::Answer,
    },
    interfaces::coverage::State,
    model::{
        terminal::harmless,
        text::{about, count, list, verb},
    },
};

/// How times are told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The time zone of who reads it.
    pub zone: TimeZone,
    /// Now.
    pub now: Timestamp,
}

impl Told {
    /// For this terminal, now.
    pub fn here() -> Self {
        Self {
            zone: TimeZone::system(),
            now: Timestamp::now(),
        }
    }

    /// The lines of an answer, each with its end. Nothing in them does anything to a terminal.
    pub fn text(&self, answer: &Answer) -> String {
        let lines = match answer {
            Answer::Status(status) => return self.status_text(status),
            Answer::List(grants) => self.list(grants),
            Answer::Watching {} => Vec::new(),
            Answer::Granted(granted) => vec![self::granted(granted)],
            Answer::Revoked(revoked) => vec![self::revoked(revoked)],
            Answer::Explained(explanation) => explanation.steps.clone(),
            Answer::Reloaded(reloaded) => self::reloaded(reloaded),
            Answer::Confirmed(confirmed) if confirmed.was_on_trial => {
                vec!["confirmed: the configuration stays in force".to_owned()]
            }
            Answer::Confirmed(_) => vec!["there is nothing to confirm".to_owned()],
            Answer::Detached(detached) => self::detached(detached),
        };
        lines_of(lines)
    }

    /// The lines of a status, as [`Told::text`].
    pub fn status_text(&self, status: &Status) -> String {
        lines_of(self.status(status))
    }

    fn status(&self, status: &Status) -> Vec<String> {
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
            row("process", self.process(status));
            let doors = count(status.doors as u64, "door");
            row("configuration", format!("{}, {doors}", status.config));
        }
        for (index, interface) in status.interfaces.iter().enumerate() {
            let mode = interface.mode.as_deref().filter(|_| interface.attached);
            let how = match (mode, &interface.because) {
                (Some(mode), _) => mode.to_owned(),
                (None, Some(because)) if interface.state == State::Blocked.name() => {
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

    fn process(&self, status: &Status) -> String {
        let Some(pid) = status.pid else {
            return "none; the kernel still judges knocks and grants, but events are not reported and commands not run".to_owned();
        };
        let mut text = pid.to_string();
        if let Some(since) = status.since.as_deref() {
            let _infallible = write!(text, ", since {}", self.moment(since));
            if let Some(age) = self.age(since) {
                let _infallible = write!(text, " ({})", short(age.as_secs_f64()));
            }
        }
        text
    }

    fn list(&self, grants: &Grants) -> Vec<String> {
        if grants.grants.is_empty() {
            return vec!["no grants".to_owned()];
        }
        let mut rows = vec![["SOURCE", "DOOR", "PORTS", "LEFT", "SINCE", "BY"].map(str::to_owned)];
        let unknown = || "-".to_owned();
        rows.extend(grants.grants.iter().map(|held| {
            [
                held.source.to_string(),
                held.door.clone(),
                held.ports.join(","),
                short(held.seconds),
                held.since
                    .as_deref()
                    .map_or_else(unknown, |since| self.moment(since)),
                held.by.clone().unwrap_or_else(unknown),
            ]
        }));
        table(&rows, [Side::Left; 6])
    }

    /// A moment of today by its time, of another day with its date.
    fn moment(&self, rfc3339: &str) -> String {
        let Ok(at) = rfc3339.parse::<Timestamp>() else {
            return rfc3339.to_owned();
        };
        let at = at.to_zoned(self.zone.clone());
        let is_today = at.date() == self.now.to_zoned(self.zone.clone()).date();
        let format = if is_today {
            "%H:%M:%S"
        } else {
            "%Y-%m-%d %H:%M:%S"
        };
        at.strftime(format).to_string()
    }

    fn age(&self, rfc3339: &str) -> Option<SignedDuration> {
        let at: Timestamp = rfc3339.parse().ok()?;
        Some(self.now.duration_since(at))
    }
}

fn lines_of(lines: Vec<String>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(harmless(line.trim_end()).as_ref());
        text.push('\n');
    }
    text
}

fn granted(granted: &Granted) -> String {
    let Granted {
        source,
        door,
        seconds,
        ..
    } = granted;
    format!(
        "{source} may use {door} ({}) for {}",
        list(&granted.ports),
        short(*seconds)
    )
}

fn revoked(revoked: &Revoked) -> String {
    let Revoked {
        source,
        doors,
        flows,
    } = revoked;
    let what = match doors.as_slice() {
        [] => format!("{source} has no such grant"),
        doors => format!("{source} may no longer use {}", doors.join(", ")),
    };
    match flows {
        0 => what,
        1 => format!("{what}; 1 connection from it continues"),
        _ => format!("{what}; {flows} connections from it continue"),
    }
}

fn reloaded(reloaded: &Reloaded) -> Vec<String> {
    let mut lines = vec![format!("reloaded {}", reloaded.config)];
    lines.extend(reloaded.changes.iter().map(|change| format!("  {change}")));
    if reloaded.changes.is_empty() {
        lines.push("  no changes".to_owned());
    }
    lines
}

fn detached(detached: &Detached) -> Vec<String> {
    if detached.interfaces.is_empty() {
        return vec!["nothing is attached".to_owned()];
    }
    let verb = verb(&detached.ports, "is", "are");
    let ports = match detached.ports.as_slice() {
        [] => "what was protected".to_owned(),
        ports => list(ports),
    };
    let told = |interface| format!("{ports} {verb} no longer protected on {interface}");
    detached.interfaces.iter().map(told).collect()
}

/// Seconds as people read them.
fn short(length_s: f64) -> String {
    spell_short(Duration::try_from_secs_f64(length_s).unwrap_or_default())
}

/// At which side of its column a cell stands.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// Rows with their columns aligned.
fn table<const N: usize>(rows: &[[String; N]], sides: [Side; N]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for ((cell, width), side) in row.iter().zip(widths).zip(sides) {
            let _infallible = match side {
                Side::Left => write!(line, "{cell:<width$}  "),
                Side::Right => write!(line, "{cell:>width$}  "),
            };
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// `ssh: line 12 is next, 988 left`.
fn one_time_text(one_time: &OneTime) -> String {
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
