//! The text of metrics, in the two formats that scrapers read.
//!
//! Prometheus asks for OpenMetrics; node_exporter and `promtool check metrics` read the classic format
//! alone. They differ in the names of counters' families, in the unit, and in the last line, so one
//! function writes both. No maintained library writes more than one of the two.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// A format of metrics.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Version 0.0.4 of Prometheus's text format.
    #[default]
    Classic,
    /// Version 1.0.0 of OpenMetrics.
    #[value(name = "openmetrics")]
    OpenMetrics,
}

/// Metrics of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricFamily {
    /// The name; that of a counter ends in `_total`.
    pub name: &'static str,
    /// The kind of the values.
    pub kind: MetricKind,
    /// The description, one sentence without a full stop.
    pub help: &'static str,
    /// The values, each with labels that no other one has.
    pub samples: Vec<Sample>,
}

/// The kind of values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricKind {
    /// They only grow, and begin again at 0.
    Counter,
    /// They go up and down.
    Gauge,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names and values of labels.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// A time in seconds.
    Real(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Whole(count)
    }
}

impl From<bool> for Value {
    fn from(is_true: bool) -> Self {
        Self::Whole(is_true.into())
    }
}

impl From<f64> for Value {
    fn from(seconds: f64) -> Self {
        Self::Real(seconds)
    }
}

impl Format {
    /// Returns the value of the header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns the format that a header `Accept` asks for: OpenMetrics if it is named and not
    /// liked less than plain text, else the classic one.
    pub fn accepted(accept: &str) -> Self {
        let mut openmetrics = 0.0_f32;
        let mut plain = 0.0_f32;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality = 1.0_f32;
            let mut is_known = true;
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    // What can't be read asks for nothing.
                    "q" => quality = value.parse().unwrap_or(0.0),
                    "version" => is_known = ["1.0.0", "0.0.1"].contains(&value),
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if is_known => {
                    openmetrics = openmetrics.max(quality)
                }
                "text/plain" => plain = plain.max(quality),
                _ => {}
            }
        }
        match openmetrics > 0.0 && openmetrics >= plain {
            true => Self::OpenMetrics,
            false => Self::Classic,
        }
    }

    /// Returns the text of families, without those that have no sample.
    pub fn write(self, families: &[MetricFamily]) -> String {
        let mut text = String::new();
        for family in families.iter().filter(|family| !family.samples.is_empty()) {
            // Writing to a string does not fail.
            let _infallible = self.family(family, &mut text);
        }
        match self {
            Self::Classic => {}
            Self::OpenMetrics => text.push_str("# EOF\n"),
        }
        text
    }

    fn family(self, family: &MetricFamily, text: &mut String) -> fmt::Result {
        let MetricFamily {
            name, kind, help, ..
        } = family;
        let (header, kind) = match (self, kind) {
            (Self::Classic, MetricKind::Counter) => (*name, "counter"),
            (Self::OpenMetrics, MetricKind::Counter) => {
                (name.strip_suffix("_total").unwrap_or(name), "counter")
            }
            (Self::Classic | Self::OpenMetrics, MetricKind::Gauge) => (*name, "gauge"),
        };
        writeln!(text, "# HELP {header} {}", escaped(help, false))?;
        writeln!(text, "# TYPE {header} {kind}")?;
        if self == Self::OpenMetrics && header.ends_with("_seconds") {
            writeln!(text, "# UNIT {header} seconds")?;
        }
        for Sample { labels, value } in &family.samples {
            text.push_str(name);
            for (place, (label, value)) in labels.iter().enumerate() {
                let before = if place == 0 { '{' } else { ',' };
                write!(text, "{before}{label}=\"{}\"", escaped(value, true))?;
            }
            let after = if labels.is_empty() { "" } else { "}" };
            match value {
                Value::Whole(value) => writeln!(text, "{after} {value}")?,
                Value::Real(value) => writeln!(text, "{after} {value:.3}")?,
            }
        }
        Ok(())
    }
}

/// Escapes the help of a family, or the value of a label.
fn escaped(text: &str, is_label: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if is_label => escaped.push_str("\\\""),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_the_scraper_accepts() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (name, accept, expected) in [
            ("Prometheus", prometheus, Format::OpenMetrics),
            ("no header", "", Format::Classic),
            ("curl", "*/*", Format::Classic),
            (
                "a browser",
                "text/html,application/xml;q=0.9,*/*;q=0.8",
                Format::Classic,
            ),
            ("plain text", "text/plain", Format::Classic),
            (
                "plain text is liked better",
                "application/openmetrics-text;q=0.5, text/plain",
                Format::Classic,
            ),
            (
                "both alike",
                "text/plain, application/openmetrics-text",
                Format::OpenMetrics,
            ),
            (
                "no version",
                "application/openmetrics-text",
                Format::OpenMetrics,
            ),
            (
                "other letters",
                "Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=1",
                Format::OpenMetrics,
            ),
            (
                "a later version",
                "application/openmetrics-text;version=2.0.0",
                Format::Classic,
            ),
            (
                "it is refused",
                "application/openmetrics-text;q=0",
                Format::Classic,
            ),
            (
                "no number",
                "application/openmetrics-text;q=much",
                Format::Classic,
            ),
            (
                "protobuf first",
                "application/vnd.google.protobuf;proto=x;q=0.9,text/plain;q=0.5",
                Format::Classic,
            ),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{name}");
        }
    }

    #[test]
    fn both_formats_have_the_same_families() {
        let sample = |labels: &[(&'static str, &str)], value| Sample {
            labels: labels
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            value,
        };
        let families = [
            MetricFamily {
                name: "knock_packets_total",
                kind: MetricKind::Counter,
                help: "Packets\nby \\ reason",
                samples: vec![sample(
                    &[("reason", "no-grant"), ("verdict", "drop")],
                    Value::Whole(u64::MAX),
                )],
            },
            MetricFamily {
                name: "knock_empty",
                kind: MetricKind::Gauge,
                help: "None",
                samples: vec![],
            },
            MetricFamily {
                name: "knock_start_timestamp_seconds",
                kind: MetricKind::Gauge,
                help: "Start",
                samples: vec![
                    sample(&[], Value::Real(1_700_000_000.25)),
                    sample(&[("door", "a\"b\\c\nd")], Value::Real(0.0)),
                ],
            },
        ];
        assert_eq!(
            Format::Classic.write(&families),
            "# HELP knock_packets_total Packets\\nby \\\\ reason\n\
             # TYPE knock_packets_total counter\n\
             knock_packets_total{reason=\"no-grant\",verdict=\"drop\"} 18446744073709551615\n\
             # HELP knock_start_timestamp_seconds Start\n\
             # TYPE knock_start_timestamp_seconds gauge\n\
             knock_start_timestamp_seconds 1700000000.250\n\
             knock_start_timestamp_seconds{door=\"a\\\"b\\\\c\\nd\"} 0.000\n"
        );
        assert_eq!(
            Format::OpenMetrics.write(&families),
            "# HELP knock_packets Packets\\nby \\\\ reason\n\
             # TYPE knock_packets counter\n\
             knock_packets_total{reason=\"no-grant\",verdict=\"drop\"} 18446744073709551615\n\
             # HELP knock_start_timestamp_seconds Start\n\
             # TYPE knock_start_timestamp_seconds gauge\n\
             # UNIT knock_start_timestamp_seconds seconds\n\
             knock_start_timestamp_seconds 1700000000.250\n\
             knock_start_timestamp_seconds{door=\"a\\\"b\\\\c\\nd\"} 0.000\n\
             # EOF\n"
        );
        assert_eq!(Format::Classic.write(&[]), "");
        assert_eq!(Format::OpenMetrics.write(&[]), "# EOF\n");
    }
}
