//! Settings of single packet authorization.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use knock_sequence::{
    Ports, Protocol,
    spa::{PORT, PairKeys, PrivateKey, PublicKey, WINDOW},
};

use super::prefix::Prefix;

/// The default place of the host's private key.
pub const HOST_KEY: &str = "/etc/knock/host.key";

/// `[spa]`: how packets are received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spa {
    /// UDP ports to which SPA packets are sent.
    pub ports: Vec<Ports>,
    /// The file with the host's private key.
    pub key: PathBuf,
    /// The file with the key that clients may still use.
    pub old_key: Option<PathBuf>,
    /// How far a stamp may be from this host's clock, in both directions.
    pub window: Duration,
    /// The treatment of other packets at these ports.
    pub otherwise: Otherwise,
    /// Whether packets must name the address that they are for.
    pub bind: bool,
    /// The host's private keys, the current one first; none if the files were not read.
    pub host_keys: Vec<HostKeyPairs>,
}

/// A private key of the host, and the keys that follow from it and those of clients.
#[derive(Clone, Debug)]
pub struct HostKeyPairs {
    /// The key.
    pub key: PrivateKey,
    /// The keys that each client shares with this host.
    pub pairs: HashMap<PublicKey, PairKeys>,
}

/// All else follows from the key.
impl PartialEq for HostKeyPairs {
    fn eq(&self, other: &Self) -> bool {
        self.key.public() == other.key.public()
    }
}

impl Eq for HostKeyPairs {}

impl Default for Spa {
    fn default() -> Self {
        Self {
            ports: vec![Ports {
                protocol: Protocol::Udp,
                first: PORT,
                last: PORT,
            }],
            key: HOST_KEY.into(),
            old_key: None,
            window: WINDOW,
            otherwise: Otherwise::Drop,
            bind: false,
            host_keys: Vec::new(),
        }
    }
}

impl Spa {
    /// Returns the files with the host's keys, each with its key in the configuration.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let old = self.old_key.as_deref().map(|path| ("old_key", path));
        [("key", self.key.as_path())].into_iter().chain(old)
    }
}

/// The treatment of packets at a SPA port that are not SPA packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Otherwise {
    /// They are dropped.
    #[default]
    Drop,
    /// They pass, for a service on the same port.
    Pass,
}

impl Otherwise {
    /// Both values, with their words in the file.
    pub const WORDS: [(&str, Self); 2] = [("drop", Self::Drop), ("pass", Self::Pass)];

    /// Returns the word in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
    }
}

/// `[[user]]`: who may open which doors.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Its name, unique in the file.
    pub name: String,
    /// The public keys of its devices.
    pub keys: Vec<UserKey>,
    /// The names of the doors that it may open; the first is the default.
    pub doors: Vec<String>,
    /// The time from which on none of its packets is accepted.
    pub until: Option<Until>,
    /// Whether packets must name the address that they are for, if not as in [`Spa::bind`].
    pub bind: Option<bool>,
    /// Whether it may ask for an address that is not the sender's.
    pub for_others: bool,
    /// The keys and rights of its fwknop client, if it has one.
    pub fwknop: Option<Fwknop>,
}

/// A client of fwknop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fwknop {
    /// The file with its keys.
    pub file: PathBuf,
    /// The user name that its packets must have.
    pub username: Option<String>,
    /// Where its packets may come from; everywhere if this is empty.
    pub source: Vec<Prefix>,
    /// Its keys; none if the file was not read.
    pub keys: Option<FwknopKeys>,
}

/// The keys of a client of fwknop.
#[derive(Clone, Eq, PartialEq)]
pub struct FwknopKeys {
    /// Decrypts packets: 1 to 32 bytes.
    pub passphrase: Vec<u8>,
    /// Authenticates packets: 1 to 136 bytes.
    pub hmac_key: Vec<u8>,
}

/// The keys are never printed.
impl fmt::Debug for FwknopKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FwknopKeys(…)")
    }
}

/// A public key of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserKey {
    /// The key.
    pub key: PublicKey,
    /// The time from which on it is not accepted.
    pub until: Option<Until>,
    /// The user's name for it, such as the device that has it; empty if nothing was written.
    pub note: String,
}

impl User {
    /// Returns the time from which on a key of this user is not accepted.
    pub fn end_of(&self, key: &UserKey) -> Option<Until> {
        [self.until, key.until].into_iter().flatten().min()
    }
}

/// The end of a key or a user.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Until(Timestamp);

impl Until {
    /// Returns the end of a day, in UTC: the day itself still counts.
    pub fn end_of_day(day: Date) -> Option<Self> {
        let next = day.tomorrow().ok()?;
        let zoned = next.to_zoned(TimeZone::UTC).ok()?;
        Some(Self(zoned.timestamp()))
    }

    /// Returns a moment.
    pub const fn at(moment: Timestamp) -> Self {
        Self(moment)
    }

    /// Returns nanoseconds since 1970; 0 before, `u64::MAX` after 2554.
    pub fn unix_ns(self) -> u64 {
        u64::try_from(self.0.as_nanosecond().max(0)).unwrap_or(u64::MAX)
    }

    /// Returns whether it has passed at a time in milliseconds since 1970.
    pub fn has_passed(self, unix_ms: u64) -> bool {
        self.unix_ns() <= unix_ms.saturating_mul(1_000_000)
    }
}

impl fmt::Display for Until {
    /// Formats it as the file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = self.0.to_zoned(TimeZone::UTC);
        let is_midnight = utc.start_of_day().is_ok_and(|start| start == utc);
        match utc.checked_sub(Span::new().days(1)) {
            Ok(day) if is_midnight => write!(f, "{}", day.date()),
            Ok(_) | Err(_) => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn an_end_is_formatted_in_the_form_of_the_file() {
        let day = Until::end_of_day(date(2027, 1, 31)).unwrap();
        assert_eq!(day.to_string(), "2027-01-31");
        let moment = Until::at("2027-01-31T18:30:00Z".parse().unwrap());
        assert_eq!(moment.to_string(), "2027-01-31T18:30:00Z");
    }

    #[test]
    fn a_key_works_on_its_last_day() {
        let day = Until::end_of_day(date(2027, 1, 31)).unwrap();
        let ms = |text: &str| {
            let moment: Timestamp = text.parse().unwrap();
            u64::try_from(moment.as_millisecond()).unwrap()
        };
        for (moment, expected) in [
            ("2027-01-31T23:59:59.999Z", false),
            ("2027-02-01T00:00:00Z", true),
        ] {
            assert_eq!(day.has_passed(ms(moment)), expected, "{moment}");
        }
    }
}
