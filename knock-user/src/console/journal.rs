//! Writes events to the journal as entries with fields, for `journalctl KNOCK_DOOR=ssh`.
//!
//! A thread sends them, so that the daemon never waits for journald. An entry that can't be sent is written to standard
//! output, which leads to the journal, too: no line is lost, and none is there twice.

use std::{
    io::{self, Write as _},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use systemd_journal_logger::JournalLog;

use super::{
    line::ConsoleLine,
    record::{EventKind, Record},
};

/// The length of the queue, in entries.
const WAITING_MAX: usize = 4_096;
/// The time limit for writing the last entries.
const FAREWELL: Duration = Duration::from_secs(1);
/// The name of this program in the journal.
const IDENTIFIER: &str = "knock-user";
/// The prefix of the names of fields.
const PREFIX: &str = "KNOCK_";

/// The fields of an entry, by name.
pub(super) type JournalFields = Vec<(String, String)>;

/// An entry.
#[derive(Debug)]
struct JournalEntry {
    message: String,
    fields: JournalFields,
}

/// Accepts entries and passes them to the sending thread.
#[derive(Debug)]
pub struct Journal {
    /// `None` only during drop.
    entries: Option<SyncSender<JournalEntry>>,
    /// Closed when everything is sent.
    sent: Mutex<Receiver<()>>,
    left_out: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal {
    /// Starts the sending thread.
    pub fn new() -> Self {
        let mut log = None;
        Self::with_sender(move |entry| send(&mut log, entry))
    }

    fn with_sender(mut send: impl FnMut(&JournalEntry) + Send + 'static) -> Self {
        let (entries, waiting) = sync_channel::<JournalEntry>(WAITING_MAX);
        let (done, sent) = channel();
        thread::spawn(move || {
            let _signals_by_closing = done;
            for entry in waiting {
                send(&entry);
            }
        });
        Self {
            entries: Some(entries),
            sent: Mutex::new(sent),
            left_out: 0,
        }
    }

    /// Adds an entry; if the queue is full, it is left out and counted.
    pub(super) fn add(&mut self, message: &str, fields: JournalFields) {
        let entry = JournalEntry {
            message: message.to_owned(),
            fields,
        };
        match self.entries.as_ref().map(|entries| entries.try_send(entry)) {
            Some(Ok(())) if self.left_out > 0 => {
                let left_out = std::mem::take(&mut self.left_out);
                tracing::warn!("the journal did not take entries: {left_out} were left out");
            }
            Some(Err(TrySendError::Full(_))) => self.left_out = self.left_out.saturating_add(1),
            // The thread ends only after this value.
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) | None => {}
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.entries.take());
        let sent = self.sent.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(RecvTimeoutError::Timeout) = sent.recv_timeout(FAREWELL) {
            tracing::warn!("the journal does not take entries: the last ones were left out");
        }
    }
}

/// Sends an entry, or else writes its message to standard output.
fn send(log: &mut Option<JournalLog>, entry: &JournalEntry) {
    if log.is_none() {
        let opened = JournalLog::empty();
        *log = opened
            .ok()
            .map(|log| log.with_syslog_identifier(IDENTIFIER.to_owned()));
    }
    let message = format_args!("{}", entry.message);
    let record = log::Record::builder()
        .args(message)
        // The crate writes this level as the priority `info`.
        .level(log::Level::Debug)
        .target(IDENTIFIER)
        .key_values(&entry.fields)
        .build();
    let is_sent = log
        .as_ref()
        .is_some_and(|log| log.journal_send(&record).is_ok());
    if !is_sent {
        *log = None;
        // Without a reader there is nobody to report it to.
        let _unread = writeln!(io::stdout(), "{}", entry.message);
    }
}

/// Returns the fields of an event: those of its object, without the time, which the journal has.
pub(super) fn fields_of_event(
    what: EventKind,
    record: &Record<'_>,
    dry_run: bool,
) -> JournalFields {
    let Ok(Value::Object(object)) = serde_json::to_value(record) else {
        return fields(what, dry_run);
    };
    let of_record = object.into_iter().filter(|(name, _)| {
        // They are known only when the object is written.
        !["time", "event", "dry_run"].contains(&name.as_str())
    });
    let of_record = of_record.flat_map(|(name, value)| {
        let values = match value {
            // A field may occur several times.
            Value::Array(values) => values,
            value @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_)) => vec![value],
        };
        values
            .into_iter()
            .map(move |value| (named(&name), text(&value)))
    });
    fields(what, dry_run).into_iter().chain(of_record).collect()
}

/// Returns the fields of a line that sums up others.
pub(super) fn fields_of_line(line: &ConsoleLine, dry_run: bool) -> JournalFields {
    let columns = [("source", &line.source), ("door", &line.door)];
    let known = columns.into_iter().filter(|(_, column)| *column != "-");
    let known = known.map(|(name, column)| (named(name), column.clone()));
    fields(line.what, dry_run)
        .into_iter()
        .chain(known)
        .collect()
}

fn fields(what: EventKind, dry_run: bool) -> JournalFields {
    let event = Some((named("event"), what.name().to_owned()));
    let dry_run = dry_run.then(|| (named("dry_run"), true.to_string()));
    event.into_iter().chain(dry_run).collect()
}

fn named(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase())
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::prefix::Prefix;

    fn words(fields: JournalFields) -> String {
        let words: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        words.join(" ")
    }

    #[test]
    fn fields_are_those_of_the_object() {
        let ports = ["tcp/22".to_owned(), "tcp/80".to_owned()];
        let source = "203.0.113.9".parse().unwrap();
        let record = Record {
            time: "now".to_owned(),
            source: Some(Prefix::of(source)),
            door: Some("ssh"),
            seconds: Some(30.0),
            ports: Some(&ports),
            port: Some(22),
            ..Record::default()
        };
        let expected = "KNOCK_EVENT=opened KNOCK_DRY_RUN=true KNOCK_DOOR=ssh KNOCK_PORT=22 KNOCK_PORTS=tcp/22 \
                        KNOCK_PORTS=tcp/80 KNOCK_SECONDS=30.0 KNOCK_SOURCE=203.0.113.9";
        let mut found = fields_of_event(EventKind::Opened, &record, true);
        let rest = &mut found[2..];
        rest.sort();
        assert_eq!(words(found), expected);
        let line = ConsoleLine {
            what: EventKind::Denied,
            source: "203.0.113.9".to_owned(),
            door: "-".to_owned(),
            why: String::new(),
        };
        let found = words(fields_of_line(&line, false));
        assert_eq!(found, "KNOCK_EVENT=denied KNOCK_SOURCE=203.0.113.9");
    }

    #[test]
    fn a_journal_that_takes_nothing_does_not_block() {
        let (begins, begun) = channel();
        let (_allow, permission) = channel::<()>();
        let mut journal = Journal::with_sender(move |_| {
            let _test_ended = begins.send(());
            let _never = permission.recv();
        });
        journal.add("one", Vec::new());
        // The thread holds one entry and takes no further ones.
        begun.recv().unwrap();
        for _ in 0..WAITING_MAX + 100 {
            journal.add("more", Vec::new());
        }
        assert_eq!(journal.left_out, 100);
    }
}
