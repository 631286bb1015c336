//! Reading `otp = { … }`.

use std::{
    env,
    fmt::Display,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use knock_common::{
    layout,
    otp::{self, HALF_MOST, Secret},
    packet::Protocol,
};
use knock_sequence::{Ports, duration};

use super::{
    problem::Report,
    section::{Item, Section},
};
use crate::refused;

const KEYS: &[&str] = &[
    "secret",
    "secret_file",
    "secret_env",
    "period",
    "base",
    "protocols",
    "bind_source",
    "skew",
];

const PERIOD: Duration = Duration::from_secs(otp::PERIOD_SECS);
/// Periods are numbered in 32 bits, which last till 2106.
const PERIOD_LEAST: Duration = Duration::from_secs(1);
const PERIOD_MOST: Duration = Duration::from_secs(86_400);
/// Periods before and after the current one whose sequences open.
const SKEW: u16 = 1;
/// More would make guessing too easy.
const SKEW_MOST: u16 = 10;
/// How often sequences may change while somebody knocks one.
const CHANGES_MOST: u32 = 8;
/// A longer one is no secret with a line end behind it.
const SECRET_FILE_MAX: u64 = 4096;
/// Octets go from 0 to this.
const SPAN: u16 = 255;

/// What the sequences of a door are made of that change with time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Otp {
    /// What both sides know.
    pub secret: Secret,
    /// Where that stands.
    pub origin: Origin,
    /// How long a sequence is the current one: whole seconds.
    pub period: Duration,
    /// The lowest port.
    pub base: u16,
    /// The protocol of each knock of a half: 1 to 32.
    pub protocols: Vec<Protocol>,
    /// Whether a second half follows, which is another for each source.
    pub bind_source: bool,
    /// How many periods before and after the current one open too.
    pub skew: u16,
}

/// Where a secret stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// In the configuration itself.
    Written,
    /// In a file of its own.
    File(PathBuf),
    /// In the environment.
    Environment,
}

impl Otp {
    /// How many knocks a sequence has.
    pub fn length(&self) -> usize {
        self.protocols.len() * if self.bind_source { 2 } else { 1 }
    }

    /// All ports that can be knocks; 0 is none.
    pub fn ports(&self) -> impl Iterator<Item = Ports> + '_ {
        let wraps = u16::MAX - self.base < SPAN;
        let last = self.base.wrapping_add(SPAN);
        let ranges = match wraps {
            true => [
                Some((self.base.max(1), u16::MAX)),
                (last > 0).then_some((1, last)),
            ],
            false => [Some((self.base.max(1), last)), None],
        };
        let used = [Protocol::Tcp, Protocol::Udp].into_iter();
        let used = used.filter(|protocol| self.protocols.contains(protocol));
        used.flat_map(move |protocol| {
            let ranges = ranges.into_iter().flatten();
            ranges.map(move |(first, last)| Ports {
                protocol,
                first,
                last,
            })
        })
    }

    /// The knocks of a half as the kernel side makes them.
    pub fn entry(&self) -> layout::Otp {
        let udp = (self.protocols.iter().enumerate())
            .filter(|(_, protocol)| **protocol == Protocol::Udp)
            .fold(0, |udp, (knock, _)| udp | 1 << knock);
        layout::Otp {
            secret: self.secret,
            udp,
            base: self.base,
            padding: 0,
        }
    }

    /// Whether a knock may be on port 0, which nobody can knock on.
    pub const fn may_be_zero(&self) -> bool {
        self.base == 0 || u16::MAX - self.base < SPAN
    }
}

/// Reads the table; `within` is how long knocking may take.
pub(super) fn read(item: &Item<'_, '_>, within: Duration, report: &mut Report) -> Option<Otp> {
    let before = report.problems.len();
    let mut section = item.section("otp", KEYS, report)?;
    let secret = secret(&mut section, report);
    let period = section.or("period", report, PERIOD, |item, report| {
        period(item, report)
    });
    let base = section.or("base", report, otp::BASE, |item, report| {
        item.number(report, 0..=u16::MAX)
    });
    let protocols = section.or("protocols", report, otp::PROTOCOLS.to_vec(), protocols);
    let bind_source = section.or("bind_source", report, true, |item, report| {
        item.boolean(report)
    });
    let skew = section.or("skew", report, SKEW, |item, report| {
        item.number(report, 0..=SKEW_MOST)
    });
    if within > period * CHANGES_MOST {
        let reason = format!(
            "{} is too short for within, which is {}: sequences must not change more than \
             {CHANGES_MOST} times while somebody knocks",
            duration::spell(period),
            duration::spell(within),
        );
        let line = section.lines.get("period").copied();
        report.add(line.unwrap_or(section.line), "period", reason);
    }
    (report.problems.len() == before).then_some(())?;
    let (secret, origin) = secret?;
    Some(Otp {
        secret,
        origin,
        period,
        base,
        protocols,
        bind_source,
        skew,
    })
}

fn period(item: &Item<'_, '_>, report: &mut Report) -> Option<Duration> {
    let period = item.duration(report, PERIOD_LEAST, PERIOD_MOST)?;
    if period.subsec_nanos() != 0 {
        return item.wrong(
            report,
            "not a whole number of seconds, in which periods are counted",
        );
    }
    Some(period)
}

fn protocols(item: &Item<'_, '_>, report: &mut Report) -> Option<Vec<Protocol>> {
    let before = report.problems.len();
    let protocols = item.list(report, |word| match word {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(format!(
            "{word:?} is not a protocol: write \"tcp\" or \"udp\""
        )),
    })?;
    (report.problems.len() == before).then_some(())?;
    match protocols.len() {
        1..=HALF_MOST => Some(protocols),
        count => item.wrong(
            report,
            format!("{count} knocks: write the protocols of 1 to {HALF_MOST}, as in [\"tcp\", \"udp\", \"tcp\"]"),
        ),
    }
}

/// The secret, from one of the places where it may be. No error shows any of it.
fn secret(section: &mut Section<'_, '_>, report: &mut Report) -> Option<(Secret, Origin)> {
    let written = section.item("secret", report);
    let file = section.item("secret_file", report);
    let variable = section.item("secret_env", report);
    let given = [&written, &file, &variable];
    match given.iter().filter(|item| item.is_some()).count() {
        0 if section.lacks("secret") => report.add(
            section.line,
            "secret",
            "missing: give a secret, better in a file, as in secret_file = \"/etc/knock/secret\"",
        ),
        0 | 1 => {}
        _ => {
            let reason = "a door has one secret: leave all but one of secret, secret_file and \
                          secret_env out";
            report.add(section.line, "secret", reason);
            return None;
        }
    }
    if let Some(item) = written {
        let secret = Secret::of_line(item.text(report)?.as_bytes());
        return told(&item, report, secret).map(|secret| (secret, Origin::Written));
    }
    if let Some(item) = variable {
        let name = item.text(report)?;
        let secret = match env::var_os(name).filter(|_| is_variable(name)) {
            Some(value) => Secret::of_line(value.as_encoded_bytes())
                .map_err(|reason| format!("the environment variable {name}: {reason}")),
            None => Err(format!(
                "there is no environment variable {name:?}: set it for the service, or use \
                 secret_file"
            )),
        };
        return told(&item, report, secret).map(|secret| (secret, Origin::Environment));
    }
    let item = file?;
    let path = PathBuf::from(item.text(report)?);
    let secret = read_secret(&path).map_err(|reason| format!("{}: {reason}", path.display()));
    told(&item, report, secret).map(|secret| (secret, Origin::File(path)))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn told<T>(item: &Item<'_, '_>, report: &mut Report, secret: Result<T, impl Display>) -> Option<T> {
    match secret {
        Ok(secret) => Some(secret),
        Err(reason) => item.wrong(report, reason),
    }
}

/// The secret in a file.
fn read_secret(path: &Path) -> Result<Secret, String> {
    let mut text = Vec::new();
    let otherwise =
        "it is not a regular file: a reload reads the secret again, so write it to a file";
    let read = super::open_regular(path, otherwise).and_then(|file| {
        let length = file.take(SECRET_FILE_MAX + 1).read_to_end(&mut text)?;
        match length as u64 > SECRET_FILE_MAX {
            true => Err(io::Error::other("it is no secret, but a long file")),
            false => Ok(()),
        }
    });
    read.map_err(|error| {
        let about = path.display().to_string();
        format!("can't be read: {}", refused::reason(&error, &about))
    })?;
    Secret::of_line(&text).map_err(|reason| reason.to_string())
}
