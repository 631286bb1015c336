//! An event in words, for one line of the view.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use knock_sequence::duration;
use serde_json::{Map, Value};

use crate::model::terminal::harmless;

/// An event in words.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct EventLine {
    pub(super) time: String,
    pub(super) event: String,
    pub(super) source: String,
    pub(super) door: String,
    pub(super) why: String,
}

impl EventLine {
    /// Describes an object of `watch --json`.
    pub(super) fn of(event: &Map<String, Value>, zone: &TimeZone) -> Self {
        let text = |name: &str| {
            event.get(name).map(|value| match value {
                Value::String(text) => harmless(text).into_owned(),
                Value::Array(list) => {
                    let words = list.iter().filter_map(Value::as_str);
                    harmless(&words.collect::<Vec<_>>().join(", ")).into_owned()
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                    value.to_string()
                }
            })
        };
        let time = text("time").and_then(|time| time.parse::<Timestamp>().ok());
        let time = time.map(|time| time.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string());
        let port = text("protocol").zip(text("port"));
        let port = port.map(|(protocol, port)| format!("{protocol}/{port}"));
        let stage = text("stage").map(|stage| match text("stages") {
            Some(stages) => format!("{stage}/{stages}"),
            None => stage,
        });
        let seconds = event.get("seconds").and_then(Value::as_f64);
        let lasts = seconds.map(|seconds| {
            let lasts = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            format!("for {}", duration::spell_short(lasts))
        });
        let why = [
            stage,
            port.or_else(|| text("ports")),
            text("reason"),
            lasts,
            text("by").map(|by| format!("by {by}")),
            text("user").map(|user| format!("user {user}")),
            text("because"),
            text("interface").map(|on| format!("on {on}")),
            text("changes"),
            text("events_suppressed").map(|count| format!("{count} suppressed")),
            text("missed").map(|count| format!("{count} lines")),
        ];
        Self {
            time: time.unwrap_or_default(),
            event: text("event").unwrap_or_default(),
            source: text("source").unwrap_or_else(|| "-".to_owned()),
            door: text("door").unwrap_or_else(|| "-".to_owned()),
            why: why.into_iter().flatten().collect::<Vec<_>>().join(" "),
        }
    }
}
