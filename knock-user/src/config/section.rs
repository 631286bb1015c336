//! Reads a table key by key, so that one wrong value does not hide the others.

use std::{collections::BTreeMap, fmt::Display, path::PathBuf, time::Duration};

use jiff::civil::Date;
use toml::de::{DeTable, DeValue};

use knock_sequence::duration;

use crate::{
    host::credentials,
    model::{problem::ProblemReport, spa::Until},
};

/// Names that other port-knocking programs, and older versions, use for our keys.
const ALIASES: &[(&str, &str)] = &[
    ("sequence", "knock"),
    ("knocks", "knock"),
    ("seq_timeout", "sequence_timeout"),
    ("within", "sequence_timeout"),
    ("timeout", "sequence_timeout"),
    ("start_command", "on_open"),
    ("command", "on_open"),
    ("stop_command", "on_close"),
    ("cmd_timeout", "open_for"),
    ("ports", "open"),
    ("interface", "interfaces"),
    ("iface", "interfaces"),
    ("whitelist", "trust"),
    ("allow", "trust"),
    ("blacklist", "block"),
    ("blocklist", "block"),
    ("deny", "block"),
    ("source", "from"),
    ("sources", "from"),
    ("seed", "secret"),
    ("otp_change_time", "period"),
    ("base", "port_base"),
    ("index", "next_line"),
    ("ip_protection", "bind_source"),
];

/// The line of each key, for errors that are found once the whole file is read.
pub(super) type KeyLines = BTreeMap<&'static str, usize>;

/// A table that is being read.
pub(super) struct Section<'t, 'i> {
    /// The name of the table in errors: `a door`, `[lockout]`.
    name: &'static str,
    /// The line of its header.
    pub(super) line: usize,
    entries: &'t DeTable<'i>,
    known: &'static [&'static str],
    /// The lines of the keys that were read.
    pub(super) lines: KeyLines,
    /// Known keys for which unknown ones were probably meant, and those whose values can't be read.
    meant: Vec<&'static str>,
}

/// A value, and where it is.
pub(super) struct TomlItem<'t, 'i> {
    pub(super) key: &'static str,
    pub(super) line: usize,
    value: &'t DeValue<'i>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// Begins a table, and reports keys that are not `known`.
    pub(super) fn new(
        name: &'static str,
        line: usize,
        entries: &'t DeTable<'i>,
        known: &'static [&'static str],
        report: &mut ProblemReport,
    ) -> Self {
        Self::included(name, line, entries, known, &[], report)
    }

    /// Begins the table of an included file: the keys of the `main` one have no place there.
    pub(super) fn included(
        name: &'static str,
        line: usize,
        entries: &'t DeTable<'i>,
        known: &'static [&'static str],
        main: &[&'static str],
        report: &mut ProblemReport,
    ) -> Self {
        let mut section = Self {
            name,
            line,
            entries,
            known,
            lines: KeyLines::new(),
            meant: Vec::new(),
        };
        section.report_unknown(main, report);
        // A key whose value can't be read is not missing.
        let broken = report.broken.iter().filter(|(at, _)| *at == line);
        let broken = broken.filter_map(|(_, key)| known.iter().find(|known| *known == key));
        section.meant.extend(broken);
        section
    }

    fn report_unknown(&mut self, main: &[&'static str], report: &mut ProblemReport) {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            if main.contains(&name) {
                let (line, file) = (report.line(&key.span()), report.sources.main());
                let reason = format!("an included file can't have it: move it to {file}");
                report.add(line, name, reason);
                continue;
            }
            let mend = match nearest(name, self.known) {
                Some(near) => {
                    self.meant.push(near);
                    format!("did you mean {near}?")
                }
                None => format!("the keys of {} are {}", self.name, self.known.join(", ")),
            };
            let line = report.line(&key.span());
            report.add(line, name, format!("unknown key: {mend}"));
        }
    }

    /// Returns the value of a key, if the key is there.
    pub(super) fn item(
        &mut self,
        key: &'static str,
        report: &ProblemReport,
    ) -> Option<TomlItem<'t, 'i>> {
        let (name, value) = self.entries.get_key_value(key)?;
        self.lines.insert(key, report.line(&name.span()));
        Some(TomlItem {
            key,
            line: report.line(&value.span()),
            value: value.get_ref(),
        })
    }

    /// Returns whether the key is missing, and no unknown key was probably meant for it.
    pub(super) fn lacks(&self, key: &str) -> bool {
        !self.entries.contains_key(key) && !self.meant.contains(&key)
    }

    /// Reads the value of a key with `read`; returns `default` if the key is missing or wrong.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        report: &mut ProblemReport,
        default: T,
        read: impl FnOnce(&TomlItem<'t, 'i>, &mut ProblemReport) -> Option<T>,
    ) -> T {
        self.get(key, report, read).unwrap_or(default)
    }

    /// Reads the value of a key with `read`.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        report: &mut ProblemReport,
        read: impl FnOnce(&TomlItem<'t, 'i>, &mut ProblemReport) -> Option<T>,
    ) -> Option<T> {
        let item = self.item(key, report)?;
        read(&item, report)
    }
}

impl<'t, 'i> TomlItem<'t, 'i> {
    /// Reports that the value is wrong.
    pub(super) fn wrong<T>(&self, report: &mut ProblemReport, reason: impl Display) -> Option<T> {
        report.add(self.line, self.key, reason.to_string());
        None
    }

    fn mistyped<T>(&self, report: &mut ProblemReport, wanted: &str) -> Option<T> {
        let found = kind(self.value);
        self.wrong(report, format!("expected {wanted}, found {found}"))
    }

    pub(super) fn boolean(&self, report: &mut ProblemReport) -> Option<bool> {
        let DeValue::Boolean(value) = self.value else {
            return self.mistyped(report, "true or false");
        };
        Some(*value)
    }

    /// Reads a number within `range`.
    pub(super) fn number(
        &self,
        report: &mut ProblemReport,
        range: std::ops::RangeInclusive<u16>,
    ) -> Option<u16> {
        let range = u32::from(*range.start())..=u32::from(*range.end());
        self.large_number(report, range)
            .and_then(|number| u16::try_from(number).ok())
    }

    /// Reads a number within `range`.
    pub(super) fn large_number(
        &self,
        report: &mut ProblemReport,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let DeValue::Integer(integer) = self.value else {
            return self.mistyped(report, "a whole number");
        };
        match u32::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.wrong(
                report,
                format!(
                    "{integer} is out of range: use {} to {}",
                    range.start(),
                    range.end()
                ),
            ),
        }
    }

    pub(super) fn text(&self, report: &mut ProblemReport) -> Option<&'t str> {
        let DeValue::String(text) = self.value else {
            return self.mistyped(report, "a text in quotes");
        };
        Some(text.as_ref())
    }

    /// Reads the name of a file, which is relative to the directory of the configuration.
    pub(super) fn path(&self, report: &mut ProblemReport) -> Option<PathBuf> {
        match self.text(report)? {
            "" => self.wrong(report, "empty: name a file"),
            name => Some(report.path(name)),
        }
    }

    /// Reads the name of a file with a secret, which may be a credential: `credential:NAME`.
    pub(super) fn secret_path(&self, report: &mut ProblemReport) -> Option<PathBuf> {
        match self.text(report)?.strip_prefix(credentials::PREFIX) {
            None => self.path(report),
            Some(name) => match credentials::path(name) {
                Ok(path) => Some(path),
                Err(reason) => self.wrong(report, reason),
            },
        }
    }

    pub(super) const fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    /// Reads a text that is one of `words`.
    pub(super) fn word<T: Copy>(
        &self,
        report: &mut ProblemReport,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        self.word_or(report, words, None)
    }

    /// Reads a text that is one of `words`; the error also names `other`, a form that is accepted
    /// too.
    pub(super) fn word_or<T: Copy>(
        &self,
        report: &mut ProblemReport,
        words: &[(&'static str, T)],
        other: Option<&str>,
    ) -> Option<T> {
        let text = self.text(report)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if let Some((_, meaning)) = found {
            return Some(*meaning);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let mend = match nearest(text, &known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => expected(&known, other),
        };
        self.wrong(report, format!("{text:?} is not known: {mend}"))
    }

    /// Reads a text with `parse`.
    pub(super) fn parsed<T, E: Display>(
        &self,
        report: &mut ProblemReport,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.text(report)?) {
            Ok(value) => Some(value),
            Err(reason) => self.wrong(report, reason),
        }
    }

    /// Reads a list of texts with `parse`; items with errors are reported and left out.
    pub(super) fn list<T, E: Display>(
        &self,
        report: &mut ProblemReport,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        Some(
            self.items(report)?
                .iter()
                .filter_map(|item| item.parsed(report, &parse))
                .collect(),
        )
    }

    /// Returns the items of a list.
    pub(super) fn items(&self, report: &mut ProblemReport) -> Option<Vec<TomlItem<'t, 'i>>> {
        if let DeValue::String(text) = self.value {
            let reason = format!("expected a list, found a text: write [\"{text}\"]");
            return self.wrong(report, reason);
        }
        let DeValue::Array(items) = self.value else {
            return self.mistyped(report, "a list of texts");
        };
        let items = items.iter().map(|item| TomlItem {
            key: self.key,
            line: report.line(&item.span()),
            value: item.get_ref(),
        });
        Some(items.collect())
    }

    /// Reads a duration from `least` to `most`.
    pub(super) fn duration(
        &self,
        report: &mut ProblemReport,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        if let DeValue::Integer(number) = self.value {
            let reason = format!("{number} has no unit: write \"{number}s\" for seconds");
            return self.wrong(report, reason);
        }
        self.parsed(report, |text| {
            duration::within(duration::parse(text)?, least..=most)
        })
    }

    /// Reads a day, which still counts, or a moment.
    pub(super) fn until(&self, report: &mut ProblemReport) -> Option<Until> {
        const WANTED: &str = "a date without quotes, as in 2027-01-31, or a time with its offset, \
                              as in 2027-01-31T18:00:00Z";
        /// Its last day has no end that jiff can represent.
        const LAST_YEAR: u16 = 9999;
        let DeValue::Datetime(written) = self.value else {
            return self.mistyped(report, WANTED);
        };
        let until = match (written.date, written.time, written.offset) {
            (Some(day), None, None) => {
                let numbers = (
                    day.year.cast_signed(),
                    day.month.cast_signed(),
                    day.day.cast_signed(),
                );
                let day = Date::new(numbers.0, numbers.1, numbers.2).ok();
                day.and_then(Until::end_of_day)
            }
            (Some(_), Some(_), Some(_)) => written.to_string().parse().ok().map(Until::at),
            (_, _, _) => None,
        };
        let is_far = written.date.is_some_and(|day| day.year >= LAST_YEAR);
        match until {
            Some(until) => Some(until),
            None if is_far => self.wrong(
                report,
                format!(
                    "{written} is later than any end that can be kept: remove until, if there is \
                     no end"
                ),
            ),
            None => self.wrong(report, format!("{written} names no moment: write {WANTED}")),
        }
    }

    /// Reads a table.
    pub(super) fn section(
        &self,
        name: &'static str,
        known: &'static [&'static str],
        report: &mut ProblemReport,
    ) -> Option<Section<'t, 'i>> {
        let DeValue::Table(entries) = self.value else {
            return self.mistyped(report, "a table");
        };
        Some(Section::new(name, self.line, entries, known, report))
    }

    /// Reads an array of tables. A single table is reported, and read as an array of one.
    pub(super) fn sections(
        &self,
        name: &'static str,
        known: &'static [&'static str],
        report: &mut ProblemReport,
    ) -> Vec<Section<'t, 'i>> {
        let one = |line, value: &'t DeValue<'i>, report: &mut ProblemReport| {
            let item = TomlItem {
                key: self.key,
                line,
                value,
            };
            item.section(name, known, report)
        };
        if let DeValue::Array(items) = self.value {
            let each = items.iter();
            return each
                .filter_map(|item| one(report.line(&item.span()), item.get_ref(), report))
                .collect();
        }
        if let DeValue::Table(_) = self.value {
            let key = self.key;
            report.add(
                self.line,
                key,
                format!("write [[{key}]], in double brackets"),
            );
            return one(self.line, self.value, report).into_iter().collect();
        }
        self.mistyped::<()>(report, "a table in double brackets");
        Vec::new()
    }
}

/// Returns the cure: `write "listening", or a list of ports, as in ["tcp/443"]`.
fn expected(words: &[&str], other: Option<&str>) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let words = match quoted.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        all => all.concat(),
    };
    match other {
        Some(other) => format!("write {words}, or {other}"),
        None => format!("write {words}"),
    }
}

const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Returns the known word that was probably meant.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_lowercase().replace('-', "_");
    let alias = ALIASES.iter().find(|(other, _)| *other == lower);
    if let Some(&(_, ours)) = alias
        && let Some(&ours) = known.iter().find(|name| **name == ours)
    {
        return Some(ours);
    }
    let distance = |name: &&&str| strsim::damerau_levenshtein(&lower, name);
    let near = known.iter().min_by_key(distance)?;
    (distance(&near) <= near.len().div_ceil(3)).then_some(*near)
}
