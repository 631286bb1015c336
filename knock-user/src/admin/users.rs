//! `knock-user users`.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

use anyhow::Result;
use jiff::Timestamp;
use knock_common::{spa::layout::SpaKeyId, time::NANOS_PER_MILLI};
use knock_sequence::duration::millis;
use serde::{Deserialize, Serialize};

use super::{
    command::{Caller, Command, NoFields},
    instances::At,
    pinned,
    text::{LocalTime, Side, table},
};
use crate::{
    apply::texts, daemon::Daemon, host::clock, kernel::instance::Instance,
    model::settings::Settings,
};

/// List users, their keys and when each was last used
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    at: At,
}

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// The users, in the order of the configuration.
    pub users: Vec<ListedUser>,
}

/// A user.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ListedUser {
    /// Its name.
    pub name: String,
    /// The doors that it may open.
    pub doors: Vec<String>,
    /// Its keys.
    pub keys: Vec<ListedKey>,
    /// Its keys of fwknop, if it has some.
    pub fwknop: Option<FwknopFile>,
}

/// The keys of a user of fwknop. It is not known when they were last used.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FwknopFile {
    /// The file with the keys.
    pub file: PathBuf,
    /// The time from which on packets are refused: RFC 3339.
    pub until: Option<String>,
    /// Whether that time has passed.
    pub expired: bool,
}

/// A key of a user.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ListedKey {
    /// The public key.
    pub key: String,
    /// Its note; empty if it has none.
    pub note: String,
    /// The time from which on it is refused: RFC 3339.
    pub until: Option<String>,
    /// Whether that time has passed.
    pub expired: bool,
    /// The stamp of the last packet that may have been accepted, by the client's clock, but not later
    /// than now, if that is known: RFC 3339.
    pub used: Option<String>,
    /// Whether packets were received after the end of the key, which were refused unless the end was
    /// changed since; when it was used before is not known.
    pub late: bool,
    /// Whether the stamp of the last packet is further ahead than the window admits, as after this
    /// host's clock was set back; when the key was used is then not known.
    #[serde(default)]
    pub ahead: bool,
}

impl Command for Args {
    const NAME: &'static str = "users";
    const ANSWER: &'static str = "users";
    type Request = NoFields;
    type Answer = Answer;

    fn at(&self) -> &At {
        &self.at
    }

    fn request(&self) -> NoFields {
        NoFields {}
    }

    fn render(answer: &Answer, time: &LocalTime) -> Vec<String> {
        if answer.users.is_empty() {
            return vec!["no users".to_owned()];
        }
        let mut rows = vec![["USER", "KEY", "NOTE", "USED", "UNTIL", "DOORS"].map(str::to_owned)];
        let or_dash = |text: String| match text.is_empty() {
            true => "-".to_owned(),
            false => text,
        };
        let moment = |at: &String| time.moment(at);
        let ending = |until: &Option<String>, is_expired: bool| {
            let expired = if is_expired { " (expired)" } else { "" };
            or_dash(until.as_ref().map(moment).unwrap_or_default() + expired)
        };
        for user in &answer.users {
            if let Some(fwknop) = &user.fwknop {
                rows.push([
                    user.name.clone(),
                    "fwknop".to_owned(),
                    fwknop.file.display().to_string(),
                    "-".to_owned(),
                    ending(&fwknop.until, fwknop.expired),
                    or_dash(user.doors.join(",")),
                ]);
            }
            for key in &user.keys {
                rows.push([
                    user.name.clone(),
                    key.key.clone(),
                    or_dash(key.note.clone()),
                    match &key.used {
                        Some(used) => moment(used),
                        None if key.late || key.ahead => "unknown".to_owned(),
                        None => "never".to_owned(),
                    },
                    ending(&key.until, key.expired),
                    or_dash(user.doors.join(",")),
                ]);
            }
        }
        table(&rows, [Side::Left; 6])
    }

    fn answer<W: Write>(_: NoFields, daemon: &mut Daemon<W>, caller: Caller<Answer>) {
        let used = daemon.protection.used_stamps();
        caller.answer(used.map(|used| answer(daemon.settings(), &used, clock::unix_ms())));
    }

    fn offline(&self, instance: &Instance) -> Result<Answer> {
        let checked = texts::read(instance, &pinned::registry(instance)?)?;
        let used = pinned::stamps()?;
        Ok(answer(&checked.settings, &used, clock::unix_ms()))
    }
}

/// Returns the users with the last stamps of their keys, in nanoseconds since 1970.
pub fn answer(settings: &Settings, used: &BTreeMap<SpaKeyId, u64>, unix_ms: u64) -> Answer {
    let window_ms = settings.spa().map_or(0, |spa| millis(spa.window));
    let latest_ns = unix_ms
        .saturating_add(window_ms)
        .saturating_mul(NANOS_PER_MILLI);
    let users = settings.users.iter().map(|user| {
        let keys = user.keys.iter().map(|key| {
            let until = user.end_of(key);
            let stamp = used.get(&SpaKeyId(key.key.id().number()));
            let is_late = |stamp: u64| until.is_some_and(|until| until.unix_ns() <= stamp);
            let is_ahead = |stamp: u64| stamp > latest_ns;
            // The clock of a client may be ahead, but no use is.
            let used_ns = |stamp: u64| stamp.min(unix_ms.saturating_mul(NANOS_PER_MILLI));
            ListedKey {
                key: key.key.to_string(),
                note: key.note.clone(),
                until: until.and_then(|until| rfc3339(until.unix_ns())),
                expired: until.is_some_and(|until| until.has_passed(unix_ms)),
                used: stamp
                    .filter(|&&stamp| !is_late(stamp) && !is_ahead(stamp))
                    .and_then(|&stamp| rfc3339(used_ns(stamp))),
                late: stamp.is_some_and(|&stamp| is_late(stamp)),
                ahead: stamp.is_some_and(|&stamp| is_ahead(stamp)),
            }
        });
        ListedUser {
            name: user.name.clone(),
            doors: user.doors.clone(),
            keys: keys.collect(),
            fwknop: user.fwknop.as_ref().map(|fwknop| FwknopFile {
                file: fwknop.file.clone(),
                until: user.until.and_then(|until| rfc3339(until.unix_ns())),
                expired: user.until.is_some_and(|until| until.has_passed(unix_ms)),
            }),
        }
    });
    Answer {
        users: users.collect(),
    }
}

fn rfc3339(unix_ns: u64) -> Option<String> {
    let at = Timestamp::from_nanosecond(unix_ns.into()).ok()?;
    Some(format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use knock_sequence::spa::PrivateKey;

    use super::*;
    use crate::config;

    #[test]
    fn no_key_was_used_in_the_future() {
        const NOW_MS: u64 = 1_000_000_000_000;
        let public = *PrivateKey::from_octets([7; 32]).public();
        let text = format!(
            "[spa]\nwindow = \"10s\"\n[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n[[user]]\nname = \
             \"alice\"\ndoors = [\"ssh\"]\nkeys = [\"{public}\"]\n"
        );
        let settings = config::parse(&text, "seq.toml").unwrap().settings;
        let id = SpaKeyId(public.id().number());
        for (name, stamp_ms, used, is_ahead) in [
            (
                "a second ago",
                NOW_MS - 1_000,
                Some("2001-09-09T01:46:39.000Z"),
                false,
            ),
            ("now", NOW_MS, Some("2001-09-09T01:46:40.000Z"), false),
            (
                "by a clock that is ahead",
                NOW_MS + 10_000,
                Some("2001-09-09T01:46:40.000Z"),
                false,
            ),
            ("beyond the window", NOW_MS + 10_001, None, true),
        ] {
            let stamps = [(id, stamp_ms * NANOS_PER_MILLI)].into();
            let answer = answer(&settings, &stamps, NOW_MS);
            let found = &answer.users[0].keys[0];
            assert_eq!(
                (found.used.as_deref(), found.ahead),
                (used, is_ahead),
                "{name}"
            );
            let text = Args::render(&answer, &LocalTime::now()).join(" ");
            assert_eq!(text.contains("unknown"), is_ahead, "{name}: {text}");
        }
    }

    #[test]
    fn a_packet_after_the_end_of_a_key_is_not_its_last_use() {
        const END_MS: u64 = 1_000_000_000_000;
        let key = PrivateKey::from_octets([7; 32]);
        let public = key.public();
        let text = format!(
            "[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n[[user]]\nname = \"alice\"\ndoors = \
             [\"ssh\"]\nkeys = [{{ key = \"{public}\", until = 2001-09-09T01:46:40Z }}]\n"
        );
        let settings = config::parse(&text, "seq.toml").unwrap().settings;
        let id = SpaKeyId(public.id().number());
        for (name, stamp_ms, is_used, is_late) in [
            ("before the end", Some(END_MS - 1), true, false),
            ("at the end", Some(END_MS), false, true),
            ("after the end", Some(END_MS + 1), false, true),
            ("never", None, false, false),
        ] {
            let used = stamp_ms.map(|ms| (id, ms * 1_000_000));
            let answer = answer(&settings, &used.into_iter().collect(), END_MS + 5);
            let found = &answer.users[0].keys[0];
            let (expected, found) = ((is_used, is_late), (found.used.is_some(), found.late));
            assert_eq!(found, expected, "{name}");
        }
    }
}
