//! The words of options and profile keys.

use knock_sequence::spa::{DoorId, PORT, PublicKey};
use knock_sequence::{Invalid, Knock, KnockSpec, Protocol, duration, otp};
use serde::{Deserialize, Deserializer};
use std::convert::Infallible;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// How long a door can be asked to open: seconds in 32 bits.
const TIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(u32::MAX as u64);

/// The public key of a host, or the reason why the text is not one.
///
/// The command line must not refuse it, because that would print the text, which may be a private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPublicKey(Result<PublicKey, Invalid>);

impl HostPublicKey {
    /// Returns the key.
    ///
    /// # Errors
    ///
    /// The text is not a public key. The error does not show it.
    pub fn key(&self) -> Result<PublicKey, Invalid> {
        self.0.clone()
    }
}

impl FromStr for HostPublicKey {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(Self(word.parse()))
    }
}

impl<'de> Deserialize<'de> for HostPublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = String::deserialize(from)?;
        let key = word.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(Ok(key)))
    }
}

/// The name of a door.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DoorName(String);

impl DoorName {
    /// Returns the id by which packets name it.
    #[must_use]
    pub fn id(&self) -> DoorId {
        DoorId::of_name(&self.0)
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DoorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DoorName {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        // The same rule as for names in a configuration.
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match word.is_empty() || !word.chars().all(fits) {
            true => Err(Invalid::new(format!(
                "{word:?} is not the name of a door: it has letters, digits, dots, dashes and \
                 underscores; leave it out for the first of your doors"
            ))),
            false => Ok(Self(word.to_owned())),
        }
    }
}

/// How long to open: whole seconds, 1 s to 136 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GrantTime(u32);

impl GrantTime {
    /// Returns the seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl FromStr for GrantTime {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        let time = otp::whole_seconds(duration::parse(word)?)?;
        let seconds = duration::within(time, TIMES)?.as_secs();
        Ok(Self(u32::try_from(seconds).unwrap_or(u32::MAX)))
    }
}

/// The UDP port of SPA packets: `udp/62201`, `62201`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketPort(u16);

impl PacketPort {
    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl Default for PacketPort {
    fn default() -> Self {
        Self(PORT)
    }
}

impl fmt::Display for PacketPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp/{}", self.0)
    }
}

impl FromStr for PacketPort {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        let spec = word
            .parse::<KnockSpec>()
            .map(|spec| spec.knock(Protocol::Udp));
        match spec {
            Ok(Knock {
                protocol: Protocol::Udp,
                port,
            }) => Ok(Self(port)),
            Ok(Knock {
                protocol: Protocol::Tcp,
                ..
            })
            | Err(_) => Err(Invalid::new(format!(
                "{word:?} is not a UDP port: write udp/PORT, such as udp/{PORT}"
            ))),
        }
    }
}

/// Reads a word of a file with the parser of the command line.
macro_rules! try_from_string {
    ($($word:ty),+) => {
        $(impl TryFrom<String> for $word {
            type Error = Invalid;

            fn try_from(word: String) -> Result<Self, Invalid> {
                word.parse()
            }
        })+
    };
}

try_from_string!(DoorName, GrantTime);

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: ToString, E: ToString>(result: Result<T, E>) -> String {
        result.map_or_else(|error| error.to_string(), |value| value.to_string())
    }

    #[test]
    fn words_are_read_or_refused_with_the_cure() {
        let seconds = |word: &str| text(word.parse::<GrantTime>().map(GrantTime::seconds));
        let port = |word: &str| text(word.parse::<PacketPort>());
        let door = |word: &str| text(word.parse::<DoorName>());
        for (name, found, expected) in [
            ("minutes", seconds("10m"), "600"),
            ("the shortest time", seconds("1s"), "1"),
            ("the longest time", seconds("4294967295s"), "4294967295"),
            (
                "no unit",
                seconds("10"),
                "\"10\" is not a duration: write a unit too",
            ),
            (
                "a fraction",
                seconds("1500ms"),
                "\"1s500ms\" is not a whole number of seconds",
            ),
            ("no time", seconds("0s"), "\"0s\" is out of range"),
            (
                "too long a time",
                seconds("4294967296s"),
                "\"49710d6h28m16s\" is out of range",
            ),
            ("a port", port("udp/443"), "udp/443"),
            ("a bare port", port("443"), "udp/443"),
            ("knockd's form", port("443:udp"), "udp/443"),
            (
                "a TCP port",
                port("tcp/443"),
                "\"tcp/443\" is not a UDP port: write udp/PORT",
            ),
            ("port 0", port("0"), "\"0\" is not a UDP port"),
            (
                "a name of a port",
                port("https"),
                "\"https\" is not a UDP port",
            ),
            ("a door", door("ssh"), "ssh"),
            ("no door", door(""), "\"\" is not the name of a door"),
            (
                "two doors",
                door("ssh,wiki"),
                "\"ssh,wiki\" is not the name of a door",
            ),
        ] {
            assert!(found.starts_with(expected), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_wrong_host_key_is_not_shown() {
        let private = "knock1-private:ERERERERERERERERERERERERERERERERERERERERERE";
        let Ok(word) = private.parse::<HostPublicKey>();
        let error = text(word.key());
        assert!(error.starts_with("this is a private key"), "{error}");
        assert!(!format!("{error}{word:?}").contains("ERER"), "{error}");
    }
}
