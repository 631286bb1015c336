//! knockd's words, for programs that read its log: `203.0.113.9: ssh: OPEN SESAME`.
//!
//! What knockd has no words for is not told: wrong knocks, packets that are dropped, grants by hand.

use std::io::Write;

use super::{Console, EventKind, Form, Stamp, record::Record};
use crate::{commands::Job, model::terminal::harmless};

/// The time of a line, to the minute: what programs that read these lines expect.
const TIME: &str = "[%Y-%m-%d %H:%M] ";

impl<W: Write> Console<W> {
    /// The same console, in knockd's words. Those who watch get ours.
    #[must_use]
    pub fn in_knockds_words(self) -> Self {
        Self {
            speaks_knockd: true,
            ..self
        }
    }

    /// Tells that a command runs; only knockd's words have that.
    pub fn running(&mut self, job: &Job, at_ns: u64) {
        let source = job.source;
        if self.form() != Form::Knockd || !self.quota.admits(COMMAND, source, &job.door, at_ns) {
            return;
        }
        let command = job.line();
        let line = format!("{}: running command: {command}", job.door);
        self.tell_as_knockd(at_ns, &[harmless(&line).into_owned()]);
    }

    /// Tells an event, if knockd would.
    pub(super) fn translate(&mut self, at_ns: u64, what: EventKind, record: &Record<'_>) {
        if self.form() != Form::Knockd {
            return;
        }
        let knocks = |name: &str| {
            let door = self.doors.iter().find(|door| door.name == name);
            door.and_then(|door| door.knocks)
        };
        self.tell_as_knockd(at_ns, &lines(what, record, knocks));
    }

    pub(super) fn tell_as_knockd(&mut self, at_ns: u64, lines: &[String]) {
        if self.form() != Form::Knockd {
            return;
        }
        let zoned = self.wall(at_ns).to_zoned(self.style.zone.clone());
        let time = zoned.strftime(TIME).to_string();
        for line in lines {
            let stamp = match self.style.stamp {
                Stamp::None => "",
                Stamp::Time | Stamp::Date => &time,
            };
            self.print(&format!("{stamp}{line}"));
        }
    }
}

/// What knockd would say; `knocks` is how many a door has, if that is known.
fn lines(
    what: EventKind,
    record: &Record<'_>,
    knocks: impl Fn(&str) -> Option<usize>,
) -> Vec<String> {
    let source = record.source.map(|source| source.to_string());
    let about = |door: &str, said: &str| {
        let source = source.as_deref().unwrap_or_default();
        format!("{source}: {door}: {said}")
    };
    let opens = |door: &str| {
        let stage = knocks(door).map(|knocks| about(door, &format!("Stage {knocks}")));
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

/// The kind of lines that say which command runs.
const COMMAND: &str = "command";

/// A repeat of the last right knock: nothing has changed.
const DUPLICATE: &str = knock_common::Reason::Duplicate.name();
