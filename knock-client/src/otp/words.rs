//! Values of options and keys, as they are typed.

use knock_sequence::duration;
use knock_sequence::otp::{self, PERIODS};
use knock_sequence::{Invalid, Protocol};
use serde::Deserialize;
use std::time::Duration;

/// A text that is kept out of logs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Hidden(pub(super) String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl std::str::FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(Self(word.to_owned()))
    }
}

/// A whole number of seconds, within [`PERIODS`]: `45s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub(super) Duration);

impl std::str::FromStr for Period {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        let period = duration::within(duration::parse(word)?, PERIODS)?;
        otp::whole_seconds(period).map(Self)
    }
}

impl TryFrom<String> for Period {
    type Error = Invalid;

    fn try_from(word: String) -> Result<Self, Invalid> {
        word.parse()
    }
}

/// The protocols of a half: `tcp,udp,tcp`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Protocols(pub(super) Vec<Protocol>);

impl std::str::FromStr for Protocols {
    type Err = Invalid;

    fn from_str(words: &str) -> Result<Self, Invalid> {
        Self::of(words.split(',').map(str::trim))
    }
}

impl TryFrom<Vec<String>> for Protocols {
    type Error = Invalid;

    fn try_from(words: Vec<String>) -> Result<Self, Invalid> {
        Self::of(words.iter().map(String::as_str))
    }
}

impl Protocols {
    fn of<'w>(words: impl Iterator<Item = &'w str>) -> Result<Self, Invalid> {
        let protocols: Result<_, Invalid> = words.map(otp::protocol).collect();
        otp::protocols(protocols?).map(Self)
    }
}
