//! Durations, read and written in one format: `1h30m`, `30s`, `250ms`.
//!
//! The format is the friendly one of [`jiff`], with days of 24 hours. All of it is read
//! (`1 hour 30 minutes`, `1.5h`), and one form of it is written.

use std::{ops::RangeInclusive, time::Duration};

use jiff::{
    Span, SpanRelativeTo, SpanRound, Unit,
    fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter},
};

use crate::Invalid;

const PARSER: SpanParser = SpanParser::new();
const PRINTER: SpanPrinter = SpanPrinter::new()
    .designator(Designator::Compact)
    .spacing(Spacing::None);

/// Reads a duration, such as `30s`, `1h30m` or `250ms`.
///
/// Units go from nanoseconds to weeks. A number without a unit is refused, since programs disagree
/// on what it means; so are months and years, whose length varies.
///
/// # Errors
/// The text is not a duration, is negative or is longer than 20 000 years.
pub fn parse(text: &str) -> Result<Duration, Invalid> {
    let wrong = |reason: String| Err(Invalid::new(format!("{text:?} is {reason}")));
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong(format!(
            "not a duration: write a unit too, as in \"{text}s\""
        ));
    }
    let Ok(span) = PARSER.parse_span(text) else {
        return match PARSER.parse_span(with_small_numbers(text)) {
            Ok(_) => wrong("too long: write at most 20000 years, in days".to_owned()),
            Err(_) => wrong(
                "not a duration: write numbers with the units us, ms, s, m, h or d, as in \"30s\" \
                 or \"1h30m\""
                    .to_owned(),
            ),
        };
    };
    if span.is_negative() {
        return wrong("negative: write a duration without a sign, as in \"30s\"".to_owned());
    }
    let Ok(length) = span.to_duration(SpanRelativeTo::days_are_24_hours()) else {
        return wrong("of no fixed length: write days instead of months and years".to_owned());
    };
    match Duration::try_from(length) {
        Ok(length) => Ok(length),
        Err(_) => wrong("too long: write at most 20000 years, in days".to_owned()),
    }
}

/// Returns the text with each whole number replaced by 1: if that is a duration, the numbers were
/// what was wrong.
fn with_small_numbers(text: &str) -> String {
    let mut small = String::with_capacity(text.len());
    let mut was_digit = false;
    for character in text.chars() {
        let is_digit = character.is_ascii_digit();
        if !is_digit {
            small.push(character);
        } else if !was_digit {
            small.push('1');
        }
        was_digit = is_digit;
    }
    small
}

/// Checks that a duration is within a range.
///
/// # Errors
/// It is shorter or longer.
pub fn within(duration: Duration, range: RangeInclusive<Duration>) -> Result<Duration, Invalid> {
    if range.contains(&duration) {
        return Ok(duration);
    }
    Err(Invalid::new(format!(
        "{:?} is out of range: use {} to {}",
        spell(duration),
        spell(*range.start()),
        spell(*range.end())
    )))
}

/// Writes a duration as [`parse`] reads it, exactly: `1d2h`, `1m30s`, `250us`, `0s`.
#[must_use]
pub fn spell(duration: Duration) -> String {
    let balance = SpanRound::new().largest(Unit::Day).days_are_24_hours();
    let text = match Span::try_from(duration).and_then(|span| span.round(balance)) {
        Ok(span) => PRINTER.span_to_string(&span),
        // More than 20 000 years: in hours, which parse does not take back.
        Err(_) => PRINTER.unsigned_duration_to_string(&duration),
    };
    // Terminals and files need not be UTF-8.
    text.replace('µ', "u")
}

/// Writes a duration for people: to the nearest second, or in whole milliseconds if it is shorter
/// than a second.
#[must_use]
pub fn spell_short(duration: Duration) -> String {
    let millis = millis(duration);
    spell(match millis {
        1_000.. => Duration::from_secs(millis.saturating_add(500) / 1_000),
        _ => Duration::from_millis(millis),
    })
}

/// Returns the whole milliseconds of a duration, or [`u64::MAX`] if there are more.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn every_form_is_read_and_one_is_written() {
        let rows = [
            ("zero", "0s", Duration::ZERO, "0s"),
            ("zero of another unit", "0ms", Duration::ZERO, "0s"),
            ("nanoseconds", "7ns", Duration::from_nanos(7), "7ns"),
            ("microseconds", "250us", Duration::from_micros(250), "250us"),
            ("milliseconds", "500ms", Duration::from_millis(500), "500ms"),
            (
                "more than a second of them",
                "1500ms",
                Duration::from_millis(1_500),
                "1s500ms",
            ),
            ("seconds", "30s", Duration::from_secs(30), "30s"),
            (
                "a minute and a half",
                "90s",
                Duration::from_secs(90),
                "1m30s",
            ),
            ("minutes", "10m", Duration::from_secs(600), "10m"),
            ("minutes, longer", "5min", Duration::from_secs(300), "5m"),
            ("hours", "36h", Duration::from_secs(36 * 3_600), "1d12h"),
            ("days", "1d", Duration::from_secs(DAY), "1d"),
            ("weeks", "2w", Duration::from_secs(14 * DAY), "14d"),
            ("a fraction", "0.5s", Duration::from_millis(500), "500ms"),
            (
                "a fraction of hours",
                "1.5h",
                Duration::from_secs(5_400),
                "1h30m",
            ),
            (
                "several units",
                "1h30m",
                Duration::from_secs(5_400),
                "1h30m",
            ),
            ("with blanks", "1h 30m", Duration::from_secs(5_400), "1h30m"),
            (
                "words",
                "1 hour 30 minutes",
                Duration::from_secs(5_400),
                "1h30m",
            ),
            ("a plus", "+5ms", Duration::from_millis(5), "5ms"),
            (
                "all of them",
                "1d2h3m4s5ms6us7ns",
                Duration::new(93_784, 5_006_007),
                "1d2h3m4s5ms6us7ns",
            ),
        ];
        for (name, text, duration, written) in rows {
            assert_eq!(parse(text), Ok(duration), "{name}: {text}");
            assert_eq!(spell(duration), written, "{name}: {text}");
            assert_eq!(parse(written), Ok(duration), "{name}: {written}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        const FORM: &str = "is not a duration: write numbers with the units us, ms, s, m, h or d, \
                            as in \"30s\" or \"1h30m\"";
        const LONG: &str = "is too long: write at most 20000 years, in days";
        const NEGATIVE: &str = "is negative: write a duration without a sign, as in \"30s\"";
        const VARIES: &str = "is of no fixed length: write days instead of months and years";
        let rows = [
            ("nothing", "", FORM),
            ("no number", "s", FORM),
            ("a word", "soon", FORM),
            ("an unknown unit", "5q", FORM),
            ("a capital unit", "5S", FORM),
            ("no unit at the end", "1h30", FORM),
            ("units the wrong way round", "30m1h", FORM),
            ("a unit twice", "1h1h", FORM),
            ("two points", "1.5.5s", FORM),
            ("other digits", "٧s", FORM),
            ("an escape sequence", "\u{1b}[2J", FORM),
            (
                "no unit",
                "30",
                "is not a duration: write a unit too, as in \"30s\"",
            ),
            (
                "zero without a unit",
                "0",
                "is not a duration: write a unit too, as in \"0s\"",
            ),
            ("negative", "-5s", NEGATIVE),
            ("in the past", "5s ago", NEGATIVE),
            ("a month", "1mo", VARIES),
            ("a year", "1y", VARIES),
            ("too many days", "18446744073709551615d", LONG),
            ("too large a number", "99999999999999999999s", LONG),
        ];
        for (name, text, expected) in rows {
            let error = parse(text).map_err(|error| error.to_string());
            assert_eq!(error, Err(format!("{text:?} {expected}")), "{name}");
        }
    }

    #[test]
    fn people_see_no_fractions_of_seconds() {
        let rows = [
            (0, "0s"),
            (250, "250ms"),
            (999, "999ms"),
            (1_499, "1s"),
            (1_500, "2s"),
            (59_600, "1m"),
            (90_000_001, "1d1h"),
        ];
        for (millis, text) in rows {
            assert_eq!(spell_short(Duration::from_millis(millis)), text, "{millis}");
        }
        assert_eq!(spell_short(Duration::from_micros(1_999)), "1ms");
    }

    #[test]
    fn every_duration_can_be_written() {
        for (name, duration, text) in [
            (
                "the longest that is read",
                Duration::from_secs(631_107_417_600),
                "7304484d",
            ),
            (
                "longer",
                Duration::from_secs(u64::MAX),
                "5124095576030431h15s",
            ),
            (
                "the longest",
                Duration::MAX,
                "5124095576030431h15s999ms999us999ns",
            ),
        ] {
            assert_eq!(spell(duration), text, "{name}");
        }
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
