//! Reads `otp = { … }`.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};

use knock_common::{
    otp::{BASE, PROTOCOLS},
    secret::Secret,
};
use knock_sequence::{
    Protocol, duration,
    otp::{self, PERIOD, PERIODS, SecretError, TimeBased},
};

use super::{
    checked::Checked,
    section::{Section, TomlItem},
};
use crate::{
    host::os_error,
    model::{
        otp::{Otp, SecretOrigin},
        problem::ProblemReport,
        settings::Dynamic,
    },
};

const KEYS: &[&str] = &[
    "secret",
    "secret_file",
    "secret_env",
    "period",
    "port_base",
    "protocols",
    "bind_source",
    "skew",
];

/// The default number of periods before and after the current one that are accepted.
const SKEW: u16 = 1;
/// More would make guessing too easy.
const SKEW_MOST: u16 = 10;
/// How often a sequence may change within `sequence_timeout`.
const CHANGES_MOST: u32 = 8;

/// Reads the table; `sequence_timeout` bounds the period.
pub(super) fn read(
    item: &TomlItem<'_, '_>,
    sequence_timeout: Duration,
    report: &mut ProblemReport,
) -> Option<Otp> {
    let before = report.problems.len();
    let mut section = item.section("otp", KEYS, report)?;
    let secret = secret(&mut section, report);
    let period = section.or("period", report, PERIOD, |item, report| {
        period(item, report)
    });
    let base = section.or("port_base", report, BASE, |item, report| {
        item.number(report, 0..=u16::MAX)
    });
    let protocols = section.or("protocols", report, PROTOCOLS.to_vec(), protocols);
    let bind_source = section.or("bind_source", report, true, |item, report| {
        item.boolean(report)
    });
    let skew = section.or("skew", report, SKEW, |item, report| {
        item.number(report, 0..=SKEW_MOST)
    });
    if sequence_timeout > period * CHANGES_MOST {
        let reason = format!(
            "{} is too short for sequence_timeout, which is {}: a sequence may change at most \
             {CHANGES_MOST} times within it",
            duration::spell(period),
            duration::spell(sequence_timeout),
        );
        let line = section.lines.get("period").copied();
        report.add(line.unwrap_or(section.line), "period", reason);
    }
    (report.problems.len() == before).then_some(())?;
    let (secret, origin) = secret?;
    Some(Otp {
        sequences: TimeBased {
            secret,
            period,
            base,
            protocols,
            bind_source,
        },
        origin,
        skew,
    })
}

fn period(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Duration> {
    let period = item.duration(report, *PERIODS.start(), *PERIODS.end())?;
    or_report(item, report, otp::whole_seconds(period))
}

fn protocols(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<Protocol>> {
    let before = report.problems.len();
    let protocols = item.list(report, otp::protocol)?;
    (report.problems.len() == before).then_some(())?;
    or_report(item, report, otp::protocols(protocols))
}

/// Reads the secret from the file, from another file or from the environment. No error contains it.
fn secret(
    section: &mut Section<'_, '_>,
    report: &mut ProblemReport,
) -> Option<(Secret, SecretOrigin)> {
    let written = section.item("secret", report);
    let file = section.item("secret_file", report);
    let variable = section.item("secret_env", report);
    let given = [&written, &file, &variable];
    match given.iter().filter(|item| item.is_some()).count() {
        0 if section.lacks("secret") => report.add(
            section.line,
            "secret",
            "missing: add a secret, preferably as secret_file = \"/etc/knock/secret\"",
        ),
        0 | 1 => {}
        _ => {
            let reason = "a door has exactly one secret: keep one of secret, secret_file and \
                          secret_env";
            report.add(section.line, "secret", reason);
            return None;
        }
    }
    if let Some(item) = written {
        let secret = Secret::of_line(item.text(report)?.as_bytes());
        return or_report(&item, report, secret).map(|secret| (secret, SecretOrigin::Written));
    }
    if let Some(item) = variable {
        let name = item.text(report)?;
        let secret = match otp::secret_in_environment(name) {
            Some(secret) => {
                secret.map_err(|reason| format!("the environment variable {name}: {reason}"))
            }
            None => Err(format!(
                "there is no environment variable {name:?}: set it for the service, or use \
                 secret_file"
            )),
        };
        return or_report(&item, report, secret).map(|secret| (secret, SecretOrigin::Environment));
    }
    let item = file?;
    let path = item.secret_path(report)?;
    let secret = read_secret(&path).map_err(|reason| format!("{}: {reason}", path.display()));
    or_report(&item, report, secret).map(|secret| (secret, SecretOrigin::File(path)))
}

impl Checked {
    /// Returns the time-based doors whose secret file has changed since it was read, with that
    /// file, or with the reason why it can't be compared.
    pub fn other_secrets(&self) -> Vec<(String, PathBuf, Option<String>)> {
        let doors = self.settings.doors.iter();
        let other = doors.filter_map(|door| {
            let Some(Dynamic::Otp(otp)) = &door.dynamic else {
                return None;
            };
            let SecretOrigin::File(path) = &otp.origin else {
                return None;
            };
            match read_secret(path) {
                Ok(secret) if secret == otp.sequences.secret => None,
                Ok(_) => Some((door.name.clone(), path.clone(), None)),
                Err(because) => Some((door.name.clone(), path.clone(), Some(because))),
            }
        });
        other.collect()
    }
}

fn or_report<T>(
    item: &TomlItem<'_, '_>,
    report: &mut ProblemReport,
    checked: Result<T, impl Display>,
) -> Option<T> {
    match checked {
        Ok(value) => Some(value),
        Err(reason) => item.wrong(report, reason),
    }
}

/// Reads the secret from a file.
fn read_secret(path: &Path) -> Result<Secret, String> {
    let otherwise =
        "it is not a regular file: a reload reads the secret again, so write it to a file";
    let read = crate::host::files::open_regular(path, otherwise)
        .map_err(SecretError::from)
        .and_then(otp::read_secret);
    read.map_err(|error| match error {
        SecretError::Unreadable(error) => {
            let about = path.display().to_string();
            format!(
                "can't be read: {}",
                os_error::reason_of_named(&error, &about)
            )
        }
        SecretError::Bad(reason) => reason.to_string(),
    })
}
