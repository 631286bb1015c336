//! Time-based sequences, as both sides work them out of the same settings.
//!
//! [`knock_common::otp`] has the computation. Configuration files, profiles and command lines have
//! the settings; what their words may be is decided here.

use std::{
    env,
    io::{self, Read},
    net::IpAddr,
    ops::RangeInclusive,
    time::Duration,
};

use knock_common::{
    otp::{HALF_MOST, Octets, PERIOD_SECS},
    secret::{BadSecret, Secret},
};

use crate::{Invalid, Knock, Ports, Protocol, duration, spelling};

/// How long a period is unless it is configured.
pub const PERIOD: Duration = Duration::from_secs(PERIOD_SECS);
/// How long a period may be: periods are numbered in 32 bits, which last till 2106.
pub const PERIODS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// The most bytes of a file with a secret: a longer one is not a secret with a line end behind it.
const SECRET_FILE_MOST: u64 = 4096;
/// Octets go from 0 to this.
const SPAN: u16 = 255;

/// The settings that a host and its clients must agree on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimeBased {
    /// The shared secret.
    pub secret: Secret,
    /// How long a sequence is the current one: whole seconds, within [`PERIODS`].
    pub period: Duration,
    /// The lowest port.
    pub base: u16,
    /// The protocol of each knock of a half: 1 to [`HALF_MOST`].
    pub protocols: Vec<Protocol>,
    /// Whether a second half follows that depends on the client's address.
    pub bind_source: bool,
}

impl TimeBased {
    /// Returns the number of knocks of a sequence.
    #[must_use]
    pub fn length(&self) -> usize {
        self.protocols.len() * if self.bind_source { 2 } else { 1 }
    }

    /// Returns the knocks of a half in a period, which is counted from 1970: of the first half, or
    /// with a source, of the second half for that address.
    ///
    /// There is no half if one of its knocks would be on port 0.
    #[must_use]
    pub fn half(&self, source: Option<IpAddr>, period: u64) -> Option<Vec<Knock>> {
        let octets = Octets::of(&self.secret, source.map(Into::into), period);
        let knock = |(number, &protocol)| {
            let port = octets.port(self.base, number);
            (port > 0).then_some(Knock { protocol, port })
        };
        (0..).zip(&self.protocols).map(knock).collect()
    }

    /// Returns all ports that can be knocks; 0 is none.
    pub fn ports(&self) -> impl Iterator<Item = Ports> + '_ {
        let last = self.base.wrapping_add(SPAN);
        let ranges = match self.wraps() {
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

    /// Returns whether a knock may be on port 0, which nobody can knock on.
    #[must_use]
    pub const fn may_be_zero(&self) -> bool {
        self.base == 0 || self.wraps()
    }

    const fn wraps(&self) -> bool {
        u16::MAX - self.base < SPAN
    }
}

/// Checks that a period is a whole number of seconds.
///
/// # Errors
/// It has a fraction of a second.
pub fn whole_seconds(period: Duration) -> Result<Duration, Invalid> {
    match period.subsec_nanos() {
        0 => Ok(period),
        _ => Err(Invalid::new(format!(
            "{:?} is not a whole number of seconds: write one, as in \
             \"45s\"",
            duration::spell(period)
        ))),
    }
}

/// Reads the protocol of a knock: `tcp` or `udp`.
///
/// # Errors
/// The word is another one.
pub fn protocol(word: &str) -> Result<Protocol, Invalid> {
    spelling::protocol(word).ok_or_else(|| {
        Invalid::new(format!(
            "{word:?} is not a protocol: write \"tcp\" or \"udp\""
        ))
    })
}

/// Checks that protocols are those of a half.
///
/// # Errors
/// There are none, or more than [`HALF_MOST`].
pub fn protocols(protocols: Vec<Protocol>) -> Result<Vec<Protocol>, Invalid> {
    match protocols.len() {
        1..=HALF_MOST => Ok(protocols),
        count => Err(Invalid::new(format!(
            "{count} knocks: write the protocols of 1 to {HALF_MOST}, as in [\"tcp\", \"udp\", \
             \"tcp\"]"
        ))),
    }
}

/// Reads the secret in an opened file: its only line.
///
/// # Errors
/// The file can't be read or is too long for a secret, or its text is not a secret. No error shows any
/// of the text.
pub fn read_secret(file: impl Read) -> Result<Secret, SecretError> {
    let mut text = Vec::new();
    let length = file.take(SECRET_FILE_MOST + 1).read_to_end(&mut text)?;
    if length as u64 > SECRET_FILE_MOST {
        return Err(io::Error::other("it is too long for a secret").into());
    }
    Ok(Secret::of_line(&text)?)
}

/// Reads the secret in an environment variable; none if there is no such variable.
#[must_use]
pub fn secret_in_environment(name: &str) -> Option<Result<Secret, BadSecret>> {
    // The standard library may panic for other names.
    let is_name = !name.is_empty() && !name.contains(['=', '\0']);
    let value = is_name.then(|| env::var_os(name))??;
    Some(Secret::of_line(value.as_encoded_bytes()))
}

/// Why a file has no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can't be read; callers name the file and the cure.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Its text is not a secret.
    #[error(transparent)]
    Bad(#[from] BadSecret),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(base: u16, protocols: &[Protocol]) -> TimeBased {
        TimeBased {
            secret: Secret::of_line(b"AAgR%XXx30O$#").expect("a secret"),
            period: PERIOD,
            base,
            protocols: protocols.to_vec(),
            bind_source: true,
        }
    }

    /// As the fork's own program has them.
    #[test]
    fn halves_are_those_of_knockds_fork() {
        use Protocol::{Tcp, Udp};
        let settings = settings(20_000, &[Tcp, Udp, Tcp]);
        let source = |text: &str| Some(text.parse().expect("an address"));
        for (name, source, period, expected) in [
            ("for everybody", None, 0, "tcp/20077 udp/20078 tcp/20127"),
            (
                "in the next period",
                None,
                1,
                "tcp/20057 udp/20137 tcp/20037",
            ),
            (
                "for a source",
                source("203.0.113.7"),
                0,
                "tcp/20119 udp/20228 tcp/20023",
            ),
        ] {
            let half = settings.half(source, period).expect(name);
            let words: Vec<String> = half.iter().map(ToString::to_string).collect();
            assert_eq!(words.join(" "), expected, "{name}");
        }
        assert_eq!(settings.length(), 6);
    }

    #[test]
    fn the_range_of_ports_leaves_out_port_0() {
        for (name, base, expected, may_be_zero) in [
            ("the usual", 20_000, "tcp/20000-20255", false),
            ("from 0", 0, "tcp/1-255", true),
            ("up to the last port", 65_280, "tcp/65280-65535", false),
            ("past the last port", 65_281, "tcp/65281-65535", true),
            ("further past", 65_283, "tcp/65283-65535 tcp/1-2", true),
        ] {
            let settings = settings(base, &[Protocol::Tcp]);
            let ports: Vec<String> = settings.ports().map(|ports| ports.to_string()).collect();
            assert_eq!(ports.join(" "), expected, "{name}");
            assert_eq!(settings.may_be_zero(), may_be_zero, "{name}");
        }
        let wrapped = settings(65_281, &[Protocol::Tcp]);
        assert!((0..10_000).any(|period| wrapped.half(None, period).is_none()));
    }

    #[test]
    fn settings_are_checked() {
        assert!(whole_seconds(Duration::from_millis(1_500)).is_err());
        assert_eq!(whole_seconds(PERIOD), Ok(PERIOD));
        assert_eq!(protocol("udp"), Ok(Protocol::Udp));
        for word in ["UDP", "icmp", ""] {
            assert!(protocol(word).is_err(), "{word:?}");
        }
        for (count, fits) in [
            (0, false),
            (1, true),
            (HALF_MOST, true),
            (HALF_MOST + 1, false),
        ] {
            let checked = protocols(vec![Protocol::Tcp; count]);
            assert_eq!(checked.is_ok(), fits, "{count}");
        }
    }

    #[test]
    fn a_secret_is_one_short_line() {
        for (name, text, expected) in [
            ("a line", "hunter2\n", None),
            ("no line end", "hunter2", None),
            ("nothing", "", Some("the secret is empty")),
            (
                "two lines",
                "a\nb\n",
                Some("the secret has more than one line"),
            ),
            (
                "a long line",
                &"x".repeat(32),
                Some("the secret has 32 bytes"),
            ),
            (
                "a long file",
                &"x".repeat(4_097),
                Some("it is too long for a secret"),
            ),
        ] {
            let error = read_secret(text.as_bytes())
                .err()
                .map(|error| error.to_string());
            match (&error, expected) {
                (None, None) => {}
                (Some(error), Some(expected)) => {
                    assert!(error.starts_with(expected), "{name}: {error}")
                }
                _ => panic!("{name}: {error:?}"),
            }
        }
        for name in ["", "A=B", "A\0B", "KNOCK_NOWHERE"] {
            assert_eq!(secret_in_environment(name), None, "{name:?}");
        }
    }
}
