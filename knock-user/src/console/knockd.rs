//! Writes events in knockd's format, for programs that read its log: `203.0.113.9: ssh: OPEN
//! SESAME`.
//!
//! Events that knockd does not know are left out: wrong knocks, dropped packets, grants by hand.

use std::io::Write;

use super::{Console, ConsoleForm, EventKind, LinePrefix, record::Record};
use crate::{commands::Job, model::terminal::harmless};

/// The time of a line, to the minute, as programs that read these lines expect.
const TIME: &str = "[%Y-%m-%d %H:%M] ";

impl<W: Write> Console<W> {
    /// Returns the console with knockd's format. Watchers receive our own.
    #[must_use]
    pub fn in_knockds_words(self) -> Self {
        Self {
            speaks_knockd: true,
            ..self
        }
    }

    /// Reports that a command runs; only knockd's format has such a line.
    pub fn running(&mut self, job: &Job, at_ns: u64) {
        let source = job.source.address;
        if self.form() != ConsoleForm::Knockd
            || !self.quota.admits(COMMAND, source, &job.door, at_ns)
        {
            return;
        }
        let command = job.line();
        let line = format!("{}: running command: {command}", job.door);
        self.report_as_knockd(at_ns, &[harmless(&line).into_owned()]);
    }

    /// Writes an event if knockd has a line for it.
    pub(super) fn translate(&mut self, at_ns: u64, what: EventKind, record: &Record<'_>) {
        if self.form() != ConsoleForm::Knockd {
            return;
        }
        let knocks = |name: &str| {
            let door = self.doors.iter().find(|door| door.name == name);
            door.and_then(|door| door.knocks)
        };
        self.report_as_knockd(at_ns, &lines(what, record, knocks));
    }

    pub(super) fn report_as_knockd(&mut self, at_ns: u64, lines: &[String]) {
        if self.form() != ConsoleForm::Knockd {
            return;
        }
        let zoned = self.wall(at_ns).to_zoned(self.style.zone.clone());
        let time = zoned.strftime(TIME).to_string();
        for line in lines {
            let stamp = match self.style.stamp {
                LinePrefix::None => "",
                LinePrefix::Time | LinePrefix::Date => &time,
            };
            self.print(&format!("{stamp}{line}"));
        }
    }
}

/// Returns knockd's lines for an event; `knocks` is the number of knocks of the door, if known.
fn lines(
    what: EventKind,
    record: &Record<'_>,
    knocks: impl Fn(&str) -> Option<usize>,
) -> Vec<String> {
    let source = record.source.map(|source| source.to_string());
    let about = |door: &str, text: &str| {
        let source = source.as_deref().unwrap_or_default();
        format!("{source}: {door}: {text}")
    };
    let opens = |door: &str| {
        // A user's packet is not a knock.
        let knocks = knocks(door).filter(|_| record.user.is_none());
        let stage = knocks.map(|knocks| about(door, &format!("Stage {knocks}")));
        stage
            .into_iter()
            .chain([about(door, "OPEN SESAME")])
            .collect()
    };
    match (what, record.door) {
        (EventKind::Opened | EventKind::Refreshed, Some(door)) if record.by.is_none() => {
            opens(door)
        }
        (EventKind::Closed, Some(door)) => match (record.reason, record.by) {
            (Some("sequence"), Some(by)) => opens(by),
            (Some("expired"), _) => vec![about(door, "command timeout")],
            _ => Vec::new(),
        },
        (EventKind::Knock, Some(door)) => match record.stage {
            Some(stage) if record.reason != Some(DUPLICATE) => {
                vec![about(door, &format!("Stage {stage}"))]
            }
            _ => Vec::new(),
        },
        (EventKind::Late, Some(door)) => {
            let stage = record.stage.unwrap_or_default();
            vec![about(door, &format!("sequence timeout (stage {stage})"))]
        }
        (EventKind::Protecting, _) => {
            let interface = record.interface.map(harmless).unwrap_or_default();
            vec![format!("starting up, listening on {interface}")]
        }
        (EventKind::Detached | EventKind::LeftOn | EventKind::Uncertain, _) => {
            vec!["shutting down".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// The kind of lines about running commands.
const COMMAND: &str = "command";

/// A duplicate of the last correct knock.
const DUPLICATE: &str = knock_common::Reason::Duplicate.name();
