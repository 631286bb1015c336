//! What people see: one event, one line.
//!
//! ```text
//! 12:00:01.123 opened  203.0.113.9  ssh  tcp/22 for 30s
//! ```
//!
//! The columns are as wide as what has been told so far. With `--json` a line is an object with
//! these fields; what an event does not have is left out:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `time` | string | RFC 3339, UTC, with milliseconds |
//! | `event` | string | one of the names of [`What`] |
//! | `source` | string | who: an IPv4 or IPv6 address |
//! | `door` | string | name of the door |
//! | `protocol` | string | `tcp` or `udp` |
//! | `port` | number | destination port |
//! | `source_port` | number | source port |
//! | `stage` | number | how many knocks of the door have been made |
//! | `of` | number | how many knocks the door has |
//! | `reason` | string | [`knock_common::Reason::name`], or `granted` by hand, or why it closed: `expired`, `sequence`, `revoked`, `removed`, `idle` |
//! | `by` | string | name of the door whose sequence closed it, or who opened or closed it by hand: `uid 0` |
//! | `until` | string | when the grant ends, like `time` |
//! | `seconds` | number | how long from `time` to `until`, or how long a flow was idle |
//! | `ports` | array of strings | what is opened, closed or protected: `tcp/22` |
//! | `interface` | string | name of the interface |
//! | `mode` | string | how the program is attached: `native` or `generic` |
//! | `because` | string | why not otherwise |
//! | `doors` | number | how many doors there are |
//! | `left_out` | number | events that were left out, because there were too many, since the last such line |
//! | `lost` | number | events that were lost, because they were not read in time, since the last such line |
//! | `count` | number | how often there was no room, since the last such line |
//! | `changes` | array of strings | what a reload changed |
//! | `line` | number | the line of a one-time file that was used |
//! | `sequences_left` | number | how many of its lines are left |
//! | `seconds_behind` | number | how far the knocker's clock seems to be behind this host's; below 0 it is ahead |
//! | `dry_run` | `true` | nothing is dropped |
//!
//! Those who watch over the control socket choose for themselves; for lines that they did not read
//! in time they get one with `time`, `event` (`missed`) and `missed`, the number of those lines.

use std::io::{self, Write};

use jiff::{Timestamp, tz::TimeZone};

use crate::config::checked::{self, Effect};

mod knockd;
mod record;
mod standing;
mod telling;
pub mod text;
pub mod watch;

use record::Record;
pub use record::What;
use telling::Line;
use text::harmless;
use watch::Watchers;

/// Wider sources do not widen their column: an IPv6 address with all its digits is rare.
const SOURCE_WIDTH_MAX: usize = 24;
/// Nor do longer names of doors.
const DOOR_WIDTH_MAX: usize = 16;

/// What the console says about a door.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DoorText {
    name: String,
    /// How many knocks it has, if always as many.
    knocks: Option<usize>,
    ports: Vec<String>,
}

impl From<&checked::Door> for DoorText {
    fn from(door: &checked::Door) -> Self {
        let (Effect::Open(ports) | Effect::Close(ports)) = &door.effect;
        Self {
            name: harmless(&door.name).into_owned(),
            knocks: door.length(),
            ports: ports.iter().map(ToString::to_string).collect(),
        }
    }
}

/// How the console speaks.
#[derive(Clone, Debug)]
pub struct Style {
    /// Objects instead of lines.
    pub json: bool,
    /// Whether nothing is dropped.
    pub dry_run: bool,
    /// Whether lines begin with the time; a journal has it anyway.
    pub time: bool,
    /// The time zone of lines; objects are always in UTC.
    pub zone: TimeZone,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attached {
    /// In the driver.
    Native,
    /// Behind the driver.
    Generic,
}

impl Attached {
    /// The word on the console and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Writes lines.
///
/// If they can't be written, because the reader has gone, the first error is kept and the rest is
/// not written: that is no reason to stop protecting.
#[derive(Debug)]
pub struct Console<W> {
    out: W,
    style: Style,
    doors: Vec<DoorText>,
    boot: Timestamp,
    widths: [usize; 3],
    failure: Option<io::Error>,
    watchers: Watchers,
    /// The writer gets knockd's lines.
    speaks_knockd: bool,
}

impl<W: Write> Console<W> {
    /// A console; `boot` is the wall time at which `CLOCK_BOOTTIME` was 0.
    pub fn new(out: W, style: Style, doors: Vec<DoorText>, boot: Timestamp) -> Self {
        Self {
            out,
            style,
            doors,
            boot,
            widths: [What::Opened.name().len(), 0, 0],
            failure: None,
            watchers: Watchers::default(),
            speaks_knockd: false,
        }
    }

    /// Those who get the lines besides the writer, each as text or as objects.
    pub fn watchers(&self) -> Watchers {
        self.watchers.clone()
    }

    /// The same console with these others, who were there before it.
    #[must_use]
    pub fn with_watchers(self, watchers: Watchers) -> Self {
        Self { watchers, ..self }
    }

    /// The configuration was read again.
    pub fn set_doors(&mut self, doors: Vec<DoorText>) {
        self.doors = doors;
    }

    /// Wall time was set.
    pub fn set_boot(&mut self, boot: Timestamp) {
        self.boot = boot;
    }

    /// Why lines are no longer written.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Writes an event.
    fn tell(&mut self, at_ns: u64, line: &Line, record: Record<'_>) {
        self.translate(at_ns, line.what, &record);
        if self.wants(Form::Text) {
            let zoned = self.wall(at_ns).to_zoned(self.style.zone.clone());
            let time = zoned.strftime("%H:%M:%S%.3f ").to_string();
            let columns = self.columns(line);
            self.write(Form::Text, &time, columns.trim_end());
        }
        self.tell_object(at_ns, line.what, record);
    }

    /// Writes a sentence.
    fn say(&mut self, at_ns: u64, what: What, text: &str, record: Record<'_>) {
        self.translate(at_ns, what, &record);
        self.write(Form::Text, "", text);
        self.tell_object(at_ns, what, record);
    }

    fn columns(&mut self, line: &Line) -> String {
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

    fn tell_object(&mut self, at_ns: u64, what: What, mut record: Record<'_>) {
        if !self.wants(Form::Json) {
            return;
        }
        record.event = what.name();
        record.time = self.utc(at_ns);
        record.dry_run = self.style.dry_run;
        match serde_json::to_string(&record) {
            Ok(text) => self.write(Form::Json, "", &text),
            Err(error) => self.failure = Some(error.into()),
        }
    }

    /// Whether anybody reads lines of this form: they are made once, and only then.
    fn wants(&self, form: Form) -> bool {
        self.form() == form || self.watchers.want(form == Form::Json)
    }

    const fn form(&self) -> Form {
        if self.speaks_knockd {
            Form::Knockd
        } else if self.style.json {
            Form::Json
        } else {
            Form::Text
        }
    }

    fn write(&mut self, form: Form, time: &str, line: &str) {
        let timed = format!("{time}{line}");
        if form != Form::Knockd {
            self.watchers.tell(form == Form::Json, &timed);
        }
        if self.failure.is_some() || self.form() != form {
            return;
        }
        let line = if self.style.time { &timed } else { line };
        // One write, so that lines of several programs in one file stay whole.
        let written = self.out.write_all(format!("{line}\n").as_bytes());
        self.failure = written.and_then(|()| self.out.flush()).err();
    }
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// For people.
    Text,
    /// One object.
    Json,
    /// knockd's.
    Knockd,
}
