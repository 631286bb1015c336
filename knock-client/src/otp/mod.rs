//! Time-based sequences: derives the current knocks.

mod words;

pub use self::words::{Hidden, Period, Protocols};
use crate::destination::{self, Destination};
use crate::refused;
use knock_common::{
    otp::{BASE, PROTOCOLS},
    secret::{BadSecret, Secret},
};
use knock_sequence::Sequence;
use knock_sequence::duration::spell;
use knock_sequence::otp::{self, PERIOD, SecretError, TimeBased};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The settings of time-based sequences; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtpSettings {
    /// The secret itself.
    pub secret: Option<Hidden>,
    /// The file with the secret.
    pub secret_file: Option<PathBuf>,
    /// The environment variable with the secret.
    pub secret_env: Option<String>,
    /// How long a sequence is current.
    pub period: Option<Period>,
    /// The lowest port.
    pub port_base: Option<u16>,
    /// The protocols of a half.
    pub protocols: Option<Protocols>,
    /// Whether a second half follows that depends on the source.
    pub bind_source: Option<bool>,
    /// The source, as the server sees it.
    #[serde(default, deserialize_with = "destination::source")]
    pub source: Option<IpAddr>,
}

/// Why there is no time-based sequence.
#[derive(Debug, thiserror::Error)]
pub enum OtpError {
    /// No secret is given, or several.
    #[error(
        "give the secret once: in a file (--otp, secret_file), in an environment variable \
         (--otp-env, secret_env) or directly (--otp-secret, secret)"
    )]
    Which,
    /// A file can't be read.
    #[error("cannot read the secret in {}: {}", path.display(), refused::of_file(cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The environment variable does not exist.
    #[error("there is no environment variable {0}: set it to the secret")]
    NoVariable(String),
    /// The text is not a valid secret.
    #[error("{place}: {reason}")]
    Bad {
        /// Where it is.
        place: String,
        /// The reason.
        reason: BadSecret,
    },
    /// This machine's source address is unknown.
    #[error(
        "cannot find the source address for {destination}: {}; name the address that the \
         server sees with --source",
        refused::plain(cause)
    )]
    NoSource {
        /// The host.
        destination: Destination,
        /// The system's error.
        cause: io::Error,
    },
    /// The source is of the wrong family.
    #[error(
        "{from} can't be the source of knocks on {destination}: leave --source out, or use -4 or -6"
    )]
    OtherFamily {
        /// The given source.
        from: IpAddr,
        /// The host.
        destination: Destination,
    },
    /// A knock would be on port 0.
    #[error(
        "the sequence of this period has a knock on port 0, which cannot be sent: try again in {}", spell(*.0)
    )]
    Zero(Duration),
    /// The sequences of all periods that the server accepts were sent.
    #[error("each sequence opens once, and those of this time were sent: the next one begins in {}", spell(*.0))]
    AllUsed(Duration),
}

/// The periods that a server accepts, counted from the current one, in the order in which they are tried.
const AWAY: [i64; 3] = [0, 1, -1];

/// The checked settings, from which sequences are derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedOtp {
    sequences: TimeBased,
    source: Option<IpAddr>,
}

impl OtpSettings {
    /// Returns whether there is a secret, or a setting that needs one.
    #[must_use]
    pub fn is_given(&self) -> bool {
        // The source alone can complete a profile.
        let nothing = Self {
            source: self.source,
            ..Self::default()
        };
        *self != nothing
    }

    /// Checks the settings and reads the secret.
    ///
    /// # Errors
    ///
    /// The secret is missing or invalid.
    pub fn check(&self) -> Result<CheckedOtp, OtpError> {
        let protocols = match &self.protocols {
            Some(Protocols(protocols)) => protocols.clone(),
            None => PROTOCOLS.to_vec(),
        };
        Ok(CheckedOtp {
            sequences: TimeBased {
                secret: self.secret()?,
                period: self.period.map_or(PERIOD, |Period(period)| period),
                base: self.port_base.unwrap_or(BASE),
                protocols,
                bind_source: self.bind_source.unwrap_or(true),
            },
            source: self.source,
        })
    }

    fn secret(&self) -> Result<Secret, OtpError> {
        let bad = |place: &str| {
            let place = place.to_owned();
            move |reason| OtpError::Bad { place, reason }
        };
        match (&self.secret, &self.secret_file, &self.secret_env) {
            (Some(Hidden(text)), None, None) => {
                Secret::of_line(text.as_bytes()).map_err(bad("secret"))
            }
            (None, Some(path), None) => {
                let file = File::open(path).map_err(SecretError::from);
                file.and_then(otp::read_secret)
                    .map_err(|error| match error {
                        SecretError::Unreadable(cause) => OtpError::Unreadable {
                            path: path.clone(),
                            cause,
                        },
                        SecretError::Bad(reason) => bad(&path.display().to_string())(reason),
                    })
            }
            (None, None, Some(name)) => {
                let secret = otp::secret_in_environment(name);
                let secret = secret.ok_or_else(|| OtpError::NoVariable(name.clone()))?;
                secret.map_err(bad(name))
            }
            _ => Err(OtpError::Which),
        }
    }
}

impl CheckedOtp {
    /// Returns the knocks for a destination now. Each sequence opens once, and the server accepts the
    /// previous and the next one, too: `round`, the number of sequences so far, selects among them.
    ///
    /// # Errors
    ///
    /// The sequence can't be derived, or has a knock on port 0.
    pub fn sequence(&self, destination: &Destination, round: u32) -> Result<Sequence, OtpError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.sequence_at(now.unwrap_or_default().as_secs(), destination, round)
    }

    fn sequence_at(
        &self,
        now: u64,
        destination: &Destination,
        round: u32,
    ) -> Result<Sequence, OtpError> {
        let away = AWAY[round as usize % AWAY.len()];
        let period = (now / self.period().as_secs()).saturating_add_signed(away);
        self.sequence_of(period, now, destination)
    }

    /// Returns the period.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.sequences.period
    }

    /// Returns the knocks of a period that the server accepts now and that is not in `used`, and adds it.
    ///
    /// # Errors
    ///
    /// All of them are used, or as for [`sequence`](Self::sequence).
    pub fn unused_sequence(
        &self,
        destination: &Destination,
        used: &mut BTreeSet<u64>,
    ) -> Result<Sequence, OtpError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.unused_sequence_at(now.unwrap_or_default().as_secs(), destination, used)
    }

    fn unused_sequence_at(
        &self,
        now: u64,
        destination: &Destination,
        used: &mut BTreeSet<u64>,
    ) -> Result<Sequence, OtpError> {
        let length = self.period().as_secs();
        let current = now / length;
        used.retain(|&period| period >= current.saturating_sub(1));
        let mut accepted = AWAY
            .map(|away| current.saturating_add_signed(away))
            .into_iter();
        let period = accepted.find(|period| !used.contains(period));
        let left = Duration::from_secs(length - now % length);
        let period = period.ok_or(OtpError::AllUsed(left))?;
        let sequence = self.sequence_of(period, now, destination)?;
        used.insert(period);
        Ok(sequence)
    }

    fn sequence_of(
        &self,
        period: u64,
        now: u64,
        destination: &Destination,
    ) -> Result<Sequence, OtpError> {
        let length = self.period().as_secs();
        let mut sources = vec![None];
        if self.sequences.bind_source {
            sources.push(Some(self.source(destination)?));
        }
        let mut knocks = Vec::new();
        for source in sources {
            let half = self.sequences.half(source, period);
            let left = length - now % length;
            knocks.extend(half.ok_or(OtpError::Zero(Duration::from_secs(left)))?);
        }
        Ok(knocks)
    }

    /// Returns the source address that the server sees.
    fn source(&self, destination: &Destination) -> Result<IpAddr, OtpError> {
        let is_v4 = destination.at(0).is_ipv4();
        match self.source.map(|source| source.to_canonical()) {
            Some(source) if source.is_ipv4() == is_v4 => Ok(source),
            Some(from) => Err(OtpError::OtherFamily {
                from,
                destination: *destination,
            }),
            None => destination
                .own_address()
                .map_err(|cause| OtpError::NoSource {
                    destination: *destination,
                    cause,
                }),
        }
    }
}

#[cfg(test)]
mod tests;
