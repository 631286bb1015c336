//! Pieces of the text of answers: lines, tables, moments and durations.

use std::{fmt::Write as _, time::Duration};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use knock_sequence::duration::spell_short;

use crate::model::terminal::harmless;

/// The time of the reader of an answer.
#[derive(Clone, Debug)]
pub struct LocalTime {
    /// The time zone.
    pub zone: TimeZone,
    /// Now.
    pub now: Timestamp,
}

impl LocalTime {
    /// Returns the time of this system.
    pub fn now() -> Self {
        Self {
            zone: TimeZone::system(),
            now: Timestamp::now(),
        }
    }

    /// Returns a moment of today as its time, of another day with its date.
    pub(super) fn moment(&self, rfc3339: &str) -> String {
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

    /// Returns the time since a moment.
    pub(super) fn age(&self, rfc3339: &str) -> Option<SignedDuration> {
        let at: Timestamp = rfc3339.parse().ok()?;
        Some(self.now.duration_since(at))
    }
}

/// Joins lines, each with its end. Control characters are escaped, so that none affects a terminal.
pub fn lines(lines: Vec<String>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(harmless(line.trim_end()).as_ref());
        text.push('\n');
    }
    text
}

/// Returns seconds as people read them.
pub(crate) fn short(length_s: f64) -> String {
    spell_short(Duration::try_from_secs_f64(length_s).unwrap_or_default())
}

/// The side of its column to which a cell is aligned.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Left,
    Right,
}

/// Returns rows with their columns aligned.
pub(super) fn table<const N: usize>(rows: &[[String; N]], sides: [Side; N]) -> Vec<String> {
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
