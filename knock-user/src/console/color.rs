//! Colours of lines about events on a terminal.

use std::{borrow::Cow, io};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

use super::record::EventKind;

/// When lines have colours.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal that has them, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Returns whether lines on standard output have colours.
    pub fn is_on(self) -> bool {
        match self {
            Self::Auto => AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// The meaning of an event for the reader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    /// A source is let in, or something is protected.
    Good,
    /// A source is not let in.
    Attention,
    /// Something is not as the configuration asks for.
    Bad,
    /// Everything else.
    Plain,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Attention => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Plain => Style::new(),
        }
    }
}

impl EventKind {
    /// Returns what the event means for the reader.
    pub const fn tone(self) -> Tone {
        match self {
            Self::Opened
            | Self::Refreshed
            | Self::Protecting
            | Self::Recovered
            | Self::Confirmed
            | Self::Enabled
            | Self::InSync => Tone::Good,
            Self::Reset
            | Self::Late
            | Self::Denied
            | Self::Decoy
            | Self::LockedOut
            | Self::Dropped
            | Self::Trial
            | Self::Fallback
            | Self::Blocked
            | Self::ClockSkew => Tone::Attention,
            Self::Full
            | Self::Pressure
            | Self::Detached
            | Self::Uncertain
            | Self::Absent
            | Self::Refused
            | Self::Lost
            | Self::Preceded
            | Self::Bypassed
            | Self::Disabled
            | Self::CutOff => Tone::Bad,
            Self::Closed
            | Self::Kept
            | Self::Knock
            | Self::Passed
            | Self::Suppressed
            | Self::LeftOn
            | Self::Reloaded
            | Self::Unblocked
            | Self::Used => Tone::Plain,
        }
    }

    /// Returns the kind with this name, as in `event` of an object.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::value_variants().iter();
        all.find(|kind| kind.name() == name).copied()
    }
}

/// Returns a line of text whose first word, after a time, is coloured if it names an event.
pub fn colored(line: &str) -> Cow<'_, str> {
    let is_time = |character: char| character.is_ascii_digit() || " :.+-".contains(character);
    let rest = line.trim_start_matches(is_time);
    let word = match rest.split(' ').next().unwrap_or_default() {
        // Two words, in a dry run.
        "would" if rest.starts_with("would drop") => "would drop",
        word => word.trim_end_matches(':'),
    };
    let kind = match word {
        "would drop" => Some(EventKind::Denied),
        word => EventKind::named(word),
    };
    let style = kind.map_or_else(Style::new, |kind| kind.tone().style());
    if style.is_plain() {
        return Cow::Borrowed(line);
    }
    let (time, _) = line.split_at(line.len() - rest.len());
    let (_, after) = rest.split_at(word.len());
    Cow::Owned(format!("{time}{style}{word}{style:#}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_an_event_is_coloured() {
        for (name, line, expected) in [
            (
                "an opening",
                "12:00:01.123 opened  203.0.113.9  ssh",
                "12:00:01.123 \u{1b}[32mopened\u{1b}[0m  203.0.113.9  ssh",
            ),
            (
                "a date",
                "2026-01-02 12:00:01.123+01:00 denied  2001:db8::1  -",
                "2026-01-02 12:00:01.123+01:00 \u{1b}[33mdenied\u{1b}[0m  2001:db8::1  -",
            ),
            (
                "a dry run",
                "12:00:01.123 would drop  203.0.113.9",
                "12:00:01.123 \u{1b}[33mwould drop\u{1b}[0m  203.0.113.9",
            ),
            (
                "a sentence",
                "detached: tcp/22 is no longer protected on eth0",
                "\u{1b}[1m\u{1b}[31mdetached\u{1b}[0m: tcp/22 is no longer protected on eth0",
            ),
            (
                "nothing special",
                "12:00:01.123 knock   a",
                "12:00:01.123 knock   a",
            ),
            ("no event", "missed 3 lines", "missed 3 lines"),
            ("another word", "openedx", "openedx"),
            ("empty", "", ""),
            ("a time alone", "12:00:01", "12:00:01"),
        ] {
            assert_eq!(colored(line), expected, "{name}");
        }
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in EventKind::value_variants() {
            assert_eq!(EventKind::named(kind.name()), Some(*kind));
        }
        assert_eq!(EventKind::named("no-event"), None);
    }

    #[test]
    fn always_and_never_ignore_the_environment() {
        assert!(ColorChoice::Always.is_on());
        assert!(!ColorChoice::Never.is_on());
    }
}
