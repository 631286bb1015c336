//! Writes events as lines of text or JSON.
//!
//! ```text
//! 12:00:01.123 opened  203.0.113.9  ssh  tcp/22 for 30s
//! ```
//!
//! A line says which address of this host the packet went to, and which interface it came in by:
//! `(192.0.2.2 on eth0)`. On a terminal the time of day is enough; elsewhere, as in a file, lines
//! begin with the date. Repeated lines are counted and summed up later.
//!
//! The columns are as wide as the widest line so far. With `--json` a line is an object:
//! docs/control.md lists the events and their fields.
//!
//! Clients of the control socket choose their own form; for lines that they did not read in time
//! they receive one with `time`, `event` (`missed`) and `missed`, the number of those lines.
//!
//! May use `ledger`, `commands` and `interfaces` for what lines are about. Must not know the daemon.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use knock_common::event::NO_DOOR;
use knock_sequence::duration::spell_short;

use crate::model::text::count;

pub mod color;
pub mod event_lines;
mod frames;
mod grant_lines;
pub mod journal;
mod knockd;
mod labels;
pub mod lifecycle_lines;
mod line;
pub mod log_files;
mod packet_text;
mod quota;
mod record;
mod repeats;
pub mod stdout;
pub mod watch;

use self::journal::{Journal, JournalFields};
pub use self::labels::{DoorText, NamedInterface};
use self::line::ConsoleLine;
use crate::ledger::HostId;
pub use crate::model::attach_mode::AttachMode;
pub use crate::model::log_format::LogFormat;
use quota::{Omitted, Quota};
pub use record::EventKind;
use record::Record;
use repeats::Repeats;
use watch::Watchers;

/// The widest column of sources: an IPv6 address with all its digits is rare.
const SOURCE_WIDTH_MAX: usize = 24;
/// How many events are kept for a report; their number is limited before.
const LAST: usize = 200;
/// The widest column of doors.
const DOOR_WIDTH_MAX: usize = 16;

/// The style of the console.
#[derive(Clone, Debug)]
pub struct Style {
    /// Writes JSON objects instead of text.
    pub json: bool,
    /// The run is dry: nothing is dropped.
    pub dry_run: bool,
    /// The beginning of lines.
    pub stamp: LinePrefix,
    /// The time zone of lines; objects are always in UTC.
    pub zone: TimeZone,
}

/// The beginning of a line of text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinePrefix {
    /// Nothing: the journal adds the time.
    None,
    /// The time of day, for a terminal.
    Time,
    /// Date, time and offset from UTC, for files.
    Date,
}

/// Writes lines.
///
/// If the reader has gone, the first error is kept and nothing more is written: the protection
/// continues.
#[derive(Debug)]
pub struct Console<W> {
    out: W,
    style: Style,
    doors: Vec<DoorText>,
    boot: Timestamp,
    widths: [usize; 3],
    failure: Option<io::Error>,
    watchers: Watchers,
    /// The names of this host's interfaces, by index.
    interfaces: BTreeMap<u32, String>,
    /// The names of users, by number.
    users: BTreeMap<u16, String>,
    /// The names of other hosts of the group, by number.
    pub(super) hosts: BTreeMap<HostId, String>,
    repeats: Repeats<ConsoleLine>,
    quota: Quota,
    /// The writer receives knockd's lines.
    speaks_knockd: bool,
    /// The last events as objects, the latest last.
    last: VecDeque<String>,
    /// Whether the writer's lines of text have colours.
    has_colors: bool,
    /// Receives the lines of text in place of the writer.
    journal: Option<Journal>,
}

impl<W: Write> Console<W> {
    /// Creates a console; `boot` is the wall time at which `CLOCK_BOOTTIME` was 0.
    pub fn new(out: W, style: Style, doors: Vec<DoorText>, boot: Timestamp) -> Self {
        Self {
            out,
            style,
            doors,
            boot,
            widths: [EventKind::Opened.name().len(), 0, 0],
            failure: None,
            watchers: Watchers::default(),
            interfaces: BTreeMap::new(),
            users: BTreeMap::new(),
            hosts: BTreeMap::new(),
            repeats: Repeats::default(),
            quota: Quota::default(),
            speaks_knockd: false,
            last: VecDeque::with_capacity(LAST),
            has_colors: false,
            journal: None,
        }
    }

    fn wall(&self, at_ns: u64) -> Timestamp {
        let since_boot = SignedDuration::from_nanos(i64::try_from(at_ns).unwrap_or(i64::MAX));
        self.boot.saturating_add(since_boot).unwrap_or(self.boot)
    }

    fn utc(&self, at_ns: u64) -> String {
        format!("{:.3}", self.wall(at_ns))
    }

    fn door(&self, index: u16) -> Option<&DoorText> {
        self.doors
            .get(usize::from(index))
            // An unused number has an entry without a name.
            .filter(|door| index != NO_DOOR && !door.name.is_empty())
    }

    /// Clients that receive the lines too, each as text or as objects.
    pub fn watchers(&self) -> Watchers {
        self.watchers.clone()
    }

    /// Returns the console with these watchers.
    #[must_use]
    pub fn with_watchers(self, watchers: Watchers) -> Self {
        Self { watchers, ..self }
    }

    /// Returns the console with colours in the writer's lines of text.
    #[must_use]
    pub fn with_colors(self, has_colors: bool) -> Self {
        Self { has_colors, ..self }
    }

    /// Returns the console that sends its lines of text to the journal, with fields, in place of the writer.
    #[must_use]
    pub fn with_journal(self, journal: Journal) -> Self {
        Self {
            journal: Some(journal),
            ..self
        }
    }

    /// Replaces the doors after a reload.
    pub fn set_doors(&mut self, doors: Vec<DoorText>) {
        self.doors = doors;
    }

    /// Sets the names of this host's interfaces, by index.
    pub fn set_interfaces(&mut self, interfaces: BTreeMap<u32, String>) {
        self.interfaces = interfaces;
    }

    /// Names another host of the group.
    pub fn name_host(&mut self, host: HostId, name: String) {
        self.hosts.insert(host, name);
    }

    /// Sets the names of users, by number.
    pub fn set_users(&mut self, users: BTreeMap<u16, String>) {
        self.users = users;
    }

    /// Follows a change of the wall time.
    pub fn set_boot(&mut self, boot: Timestamp) {
        self.boot = boot;
    }

    /// Returns why lines are no longer written.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// Returns the last events as objects, the latest last.
    pub fn last_objects(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }

    /// Returns the writer.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Writes an event.
    fn report(&mut self, at_ns: u64, line: &ConsoleLine, record: Record<'_>) {
        self.translate(at_ns, line.what, &record);
        let fields = self.fields(line.what, &record);
        self.write_columns(at_ns, line, fields);
        self.report_object(at_ns, line.what, record);
    }

    /// Writes summaries of lines that were not written: repetitions that have ended, or all of them
    /// `at_end`, and lines above the quota.
    pub fn sum_up(&mut self, now_ns: u64, at_end: bool) {
        for left_out in self.quota.take_left_out() {
            self.lines_left_out(left_out, now_ns);
        }
        for repeated in self.repeats.due(now_ns, at_end) {
            let times = count(repeated.times, "more time");
            let mut line = repeated.line;
            line.why = format!("{}, {times} in {}", line.why, spell_short(repeated.within));
            let fields = journal::fields_of_line(&line, self.style.dry_run);
            self.write_columns(repeated.last_ns, &line, fields);
        }
    }

    /// Reports how many lines of a kind exceeded the quota.
    fn lines_left_out(&mut self, left_out: Omitted, at_ns: u64) {
        let Omitted {
            kind,
            lines,
            sources,
            doors,
        } = left_out;
        let why = format!(
            "{} of {kind} ({}, {}): too many at once",
            count(lines, "line"),
            count(sources as u64, "source"),
            count(doors as u64, "door"),
        );
        let record = Record {
            events_suppressed: Some(lines),
            kind: Some(kind),
            sources: Some(sources),
            doors: Some(doors),
            ..Record::default()
        };
        self.report_as_knockd(at_ns, &[format!("left out: {why}")]);
        let line = ConsoleLine {
            what: EventKind::Suppressed,
            source: "-".to_owned(),
            door: "-".to_owned(),
            why,
        };
        self.report(at_ns, &line, record);
    }

    /// Returns the fields of an event, if the journal wants them.
    fn fields(&self, what: EventKind, record: &Record<'_>) -> JournalFields {
        match &self.journal {
            Some(_) => journal::fields_of_event(what, record, self.style.dry_run),
            None => JournalFields::new(),
        }
    }

    fn write_columns(&mut self, at_ns: u64, line: &ConsoleLine, fields: JournalFields) {
        if self.wants_text() {
            let columns = self.columns(line);
            self.write_text(at_ns, columns.trim_end(), LinePrefix::Time, fields);
        }
    }

    /// Writes a sentence.
    fn write_sentence(&mut self, at_ns: u64, what: EventKind, text: &str, record: Record<'_>) {
        self.translate(at_ns, what, &record);
        // At a terminal the time is evident.
        let fields = self.fields(what, &record);
        self.write_text(at_ns, text, LinePrefix::None, fields);
        self.report_object(at_ns, what, record);
    }

    /// Writes a line of text; `brief` is the line without the date.
    fn write_text(&mut self, at_ns: u64, text: &str, brief: LinePrefix, fields: JournalFields) {
        for (form, stamp) in [
            (watch::Form::Text, brief),
            (watch::Form::Dated, LinePrefix::Date),
        ] {
            if self.watchers.want(&[form]) {
                let line = format!("{}{text}", self.stamped(at_ns, stamp));
                self.watchers.send(form, &line);
            }
        }
        if self.form() != ConsoleForm::Text {
            return;
        }
        if let Some(journal) = &mut self.journal {
            journal.add(text, fields);
        } else {
            let stamp = match self.style.stamp {
                LinePrefix::Time => brief,
                LinePrefix::None | LinePrefix::Date => self.style.stamp,
            };
            let line = format!("{}{text}", self.stamped(at_ns, stamp));
            match self.has_colors {
                true => self.print(&color::colored(&line)),
                false => self.print(&line),
            }
        }
    }

    /// Returns the beginning of a line, with a blank.
    fn stamped(&self, at_ns: u64, stamp: LinePrefix) -> String {
        let format = match stamp {
            LinePrefix::None => return String::new(),
            LinePrefix::Time => "%H:%M:%S%.3f ",
            LinePrefix::Date => "%Y-%m-%d %H:%M:%S%.3f%:z ",
        };
        let zoned = self.wall(at_ns).to_zoned(self.style.zone.clone());
        zoned.strftime(format).to_string()
    }

    fn columns(&mut self, line: &ConsoleLine) -> String {
        let word = line.what.word(self.style.dry_run);
        let columns = [
            (word, usize::MAX),
            (&line.source, SOURCE_WIDTH_MAX),
            (&line.door, DOOR_WIDTH_MAX),
        ];
        let mut text = String::new();
        for (width, (column, width_max)) in self.widths.iter_mut().zip(columns) {
            let characters = column.chars().count();
            *width = (*width).max(characters.min(width_max));
            text.push_str(column);
            let padding = width.saturating_sub(characters).saturating_add(2);
            text.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(&line.why);
        text
    }

    fn report_object(&mut self, at_ns: u64, what: EventKind, mut record: Record<'_>) {
        record.event = what.name();
        record.time = self.utc(at_ns);
        record.dry_run = self.style.dry_run;
        match serde_json::to_string(&record) {
            Ok(text) => {
                if self.last.len() >= LAST {
                    self.last.pop_front();
                }
                self.last.push_back(text.clone());
                self.watchers.send(watch::Form::Json, &text);
                if self.form() == ConsoleForm::Json {
                    self.print(&text);
                }
            }
            Err(error) => self.failure = Some(error.into()),
        }
    }

    /// Returns whether text has a reader: lines are formatted once, and only if needed.
    fn wants_text(&self) -> bool {
        self.form() == ConsoleForm::Text
            || self.watchers.want(&[watch::Form::Text, watch::Form::Dated])
    }

    const fn form(&self) -> ConsoleForm {
        if self.speaks_knockd {
            ConsoleForm::Knockd
        } else if self.style.json {
            ConsoleForm::Json
        } else {
            ConsoleForm::Text
        }
    }

    /// Writes a line to the writer, unless that failed before.
    fn print(&mut self, line: &str) {
        if self.failure.is_some() {
            return;
        }
        // One write, so that lines of several programs in one file stay whole.
        let written = self.out.write_all(format!("{line}\n").as_bytes());
        self.failure = written.and_then(|()| self.out.flush()).err();
    }
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ConsoleForm {
    /// For people.
    Text,
    /// One object.
    Json,
    /// knockd's.
    Knockd,
}
