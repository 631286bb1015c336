//! Removes secrets and personal data from configurations and events.
//!
//! Nothing is shown that is not in a list here: a new key or field stays hidden until somebody has
//! decided that it may be shown.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use toml::{Table, Value};

use crate::{admin::status, model::sources};

/// Keys whose values are shown, with the tables that they are in.
const SHOWN: [(&str, &[&str]); 12] = [
    ("", &["interfaces", "mode", "protect", "strict", "exempt"]),
    ("established", &["keep", "idle", "idle_udp"]),
    ("lockout", &["failures", "time", "scope"]),
    (
        "limits",
        &[
            "memory",
            "first_knocks",
            "attempts",
            "grants",
            "flows",
            "failures",
            "events",
            "used_sequences",
        ],
    ),
    ("decoys", &["count", "range"]),
    ("control", &["group"]),
    ("fleet", &["alone", "grace", "longest", "watches"]),
    ("spa", &["ports", "window", "otherwise", "bind"]),
    ("user", &["name", "doors", "until"]),
    (
        "door",
        &[
            "name",
            "open",
            "close",
            "open_for",
            "open_for_max",
            "sequence_timeout",
            "step_timeout",
            "tcp_flags",
            "verify",
            "knock_pass",
            "reply",
            "lookahead",
            "command_timeout",
        ],
    ),
    ("door.otp", &["period", "protocols", "bind_source", "skew"]),
    ("user.keys", &["until"]),
];

/// Fields of events that are shown as they are. The ports of knocks are not among them.
const FIELDS: [&str; 23] = [
    "time",
    "event",
    "door",
    "stage",
    "stages",
    "reason",
    "by",
    "user",
    "until",
    "seconds",
    "ports",
    "interface",
    "current_name",
    "mode",
    "doors",
    "events_suppressed",
    "kind",
    "sources",
    "events_lost",
    "count",
    "line",
    "sequences_left",
    "dry_run",
];

/// Fields of events with addresses.
const ADDRESSES: [&str; 4] = ["source", "destination", "asked_from", "asked_for"];

/// Events whose reason is about an interface, and quotes no configuration.
const WITH_REASON: [&str; 5] = ["fallback", "refused", "absent", "bypassed", "lost"];

/// Shortfalls whose text quotes a configuration or a file with sequences.
const QUOTING: [&str; 2] = ["reload-failed", "door-unusable"];

/// Removes quotes of configurations and files from a status.
pub(super) fn status(status: &mut status::Answer) {
    for shortfall in &mut status.shortfalls {
        if QUOTING.contains(&shortfall.kind.as_str()) {
            shortfall.text = format!("{}: `knock-user status` has the reason", shortfall.kind);
        }
    }
    for door in &mut status.one_time {
        if door.because.is_some() {
            door.because = Some("`knock-user status` has the reason".to_owned());
        }
    }
    // They name addresses.
    status.notes.clear();
}

/// Returns a configuration without its comments and with hidden values in place of all that is not
/// known to be harmless.
pub(super) fn configuration(text: &str) -> String {
    // The names of files may name persons.
    let parts = sources::parts(text);
    let shown = parts.iter().map(|part| redacted(part.text));
    shown.collect::<Vec<_>>().join("\n# An included file:\n")
}

fn redacted(text: &str) -> String {
    match text.parse::<Table>() {
        Ok(table) => toml::to_string(&shown(table, "")).unwrap_or_default(),
        // An error would quote the line.
        Err(_) => "# The text is not TOML; `knock-user check` shows where.\n".to_owned(),
    }
}

fn shown(table: Table, name: &str) -> Table {
    let keys = SHOWN.iter().find(|(table, _)| *table == name);
    let keys = keys.map_or(&[][..], |(_, keys)| keys);
    let entries = table.into_iter().map(|(key, value)| {
        let inner = match name {
            "" => key.clone(),
            outer => format!("{outer}.{key}"),
        };
        let is_shown = keys.contains(&key.as_str());
        let value = if is_shown {
            value
        } else {
            inner_shown(value, &inner)
        };
        (key, value)
    });
    entries.collect()
}

/// Returns a value of a key that is not shown itself: tables in it may have keys that are.
fn inner_shown(value: Value, name: &str) -> Value {
    if let Value::Table(table) = value {
        return Value::Table(shown(table, name));
    }
    if let Value::Array(list) = &value
        && list.iter().any(Value::is_table)
    {
        let items = list.iter().cloned();
        return Value::Array(items.map(|item| inner_shown(item, name)).collect());
    }
    hidden(&value)
}

/// Returns what stands for a value: its kind, and the length of a list.
fn hidden(value: &Value) -> Value {
    let text = match value {
        Value::Array(list) => format!("<{} hidden>", list.len()),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Table(_) => "<hidden>".to_owned(),
    };
    Value::String(text)
}

/// Names in place of addresses: the same one for the same address.
#[derive(Debug, Default)]
pub(super) struct Addresses(BTreeMap<String, usize>);

impl Addresses {
    fn name(&mut self, address: &str) -> String {
        let next = self.0.len().saturating_add(1);
        let number = *self.0.entry(address.to_owned()).or_insert(next);
        format!("address-{number}")
    }

    /// Returns an event, a line of JSON, without ports of knocks and with names for addresses; none if
    /// it is not an object.
    pub(super) fn event(&mut self, line: &str) -> Option<String> {
        let Json::Object(event) = serde_json::from_str(line).ok()? else {
            return None;
        };
        let kind = event
            .get("event")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let has_reason = WITH_REASON.contains(&kind);
        let mut shown = Map::new();
        for (field, value) in &event {
            let field = field.as_str();
            let is_shown = FIELDS.contains(&field) || field == "because" && has_reason;
            let value = if is_shown {
                value.clone()
            } else if let Json::String(address) = value
                && ADDRESSES.contains(&field)
            {
                self.name(address).into()
            } else {
                continue;
            };
            shown.insert(field.to_owned(), value);
        }
        Some(Json::Object(shown).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        # SECRET-comment
        interfaces = ["eth0"]
        trust = ["203.0.113.0/24"]
        SECRET_key_with_a_typo = "SECRET-typo"
        [metrics]
        listen = "198.51.100.7:9482"
        [spa]
        key = "/etc/SECRET-path"
        window = "30s"
        [decoys]
        ports = ["tcp/4711"]
        [[user]]
        name = "alice"
        keys = ["knock1:SECRET-public", { key = "knock1:SECRET-other", until = 2030-01-01, note = "SECRET-note" }]
        fwknop = "SECRET.fwknop"
        doors = ["ssh"]
        [[door]]
        name = "ssh"
        knock = ["tcp/7321", "udp/8321", "tcp/9321"]
        open = ["tcp/22"]
        on_open = ["/usr/bin/curl", "https://SECRET-token@example.org"]
        target = "198.51.100.7"
        [[door]]
        name = "otp"
        open = ["tcp/80"]
        otp = { secret = "SECRET-otp", period = "45s", secret_file = "SECRET-file", port_base = 23456 }
        [[door]]
        name = "once"
        one_time = "SECRET-once"
        open = ["tcp/443"]
    "#;

    #[test]
    fn a_configuration_keeps_its_form_and_no_secret() {
        let shown = configuration(CONFIG);
        for secret in [
            "SECRET-",
            "SECRET.",
            "7321",
            "8321",
            "9321",
            "4711",
            "203.0.113",
            "198.51.100",
            "knock1:",
            "curl",
            "23456",
        ] {
            assert!(!shown.contains(secret), "{secret} is in\n{shown}");
        }
        for part in [
            "interfaces = [\"eth0\"]",
            "window = \"30s\"",
            "knock = \"<3 hidden>\"",
            "open = [\"tcp/22\"]",
            "on_open = \"<2 hidden>\"",
            "name = \"alice\"",
            "until = 2030-01-01",
            "period = \"45s\"",
            "secret = \"<hidden>\"",
            "one_time = \"<hidden>\"",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }

    #[test]
    fn a_text_that_is_not_toml_is_not_quoted() {
        let shown = configuration("knock = [\"tcp/7321\"\nsecret = ");
        assert!(
            !shown.contains("7321") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[test]
    fn an_event_keeps_no_port_of_a_knock_and_no_address() {
        let mut addresses = Addresses::default();
        for (name, event, expected) in [
            (
                "a knock",
                r#"{"time":"T","event":"knock","source":"192.0.2.1","door":"ssh","protocol":"tcp","port":7321,"source_port":9,"destination":"192.0.2.2","stage":1}"#,
                r#"{"destination":"address-1","door":"ssh","event":"knock","source":"address-2","stage":1,"time":"T"}"#,
            ),
            (
                "the same source",
                r#"{"event":"opened","source":"192.0.2.1","ports":["tcp/22"]}"#,
                r#"{"event":"opened","ports":["tcp/22"],"source":"address-2"}"#,
            ),
            (
                "a reason that may quote a line",
                r#"{"event":"disabled","because":"line 3: tcp/7321"}"#,
                r#"{"event":"disabled"}"#,
            ),
            (
                "a reason about an interface",
                r#"{"event":"refused","because":"a bridge"}"#,
                r#"{"because":"a bridge","event":"refused"}"#,
            ),
            (
                "changes and new fields",
                r#"{"event":"reloaded","changes":["tcp/7321"],"new":"7321"}"#,
                r#"{"event":"reloaded"}"#,
            ),
        ] {
            let shown: Json = serde_json::from_str(&addresses.event(event).unwrap()).unwrap();
            let expected: Json = serde_json::from_str(expected).unwrap();
            assert_eq!(shown, expected, "{name}");
        }
        assert_eq!(addresses.event("no object"), None);
        assert_eq!(addresses.event("[7321]"), None);
    }
}
