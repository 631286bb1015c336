//! Reads the values of keys.

use crate::next_line::NextLineAddress;
use crate::reply::{ConnectTo, parse_connect_to, parse_timeout};
use crate::spa::PacketPort;
use knock_sequence::duration;
use knock_sequence::{Invalid, Knock, KnockSpec, Protocol};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::time::Duration;

pub(super) fn knocks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Knock>>, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    if words.is_empty() {
        return Err(D::Error::custom(
            "no knocks: write [\"tcp/7000\", \"udp/8000\"]",
        ));
    }
    let knocks: Result<_, Invalid> = words
        .iter()
        .map(|word| Ok(word.parse::<KnockSpec>()?.knock(Protocol::Tcp)))
        .collect();
    knocks.map(Some).map_err(D::Error::custom)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let word = String::deserialize(from)?;
    duration::parse(&word).map(Some).map_err(D::Error::custom)
}

pub(super) fn timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let word = String::deserialize(from)?;
    parse_timeout(&word).map(Some).map_err(D::Error::custom)
}

/// Reads `7001` or `"example.org:7001/ssh"`.
pub(super) fn next_line<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<NextLineAddress>, D::Error> {
    let word = number_or_word(from)?;
    word.parse().map(Some).map_err(D::Error::custom)
}

/// Reads `62201` or `"udp/62201"`.
pub(super) fn spa_port<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PacketPort>, D::Error> {
    let word = number_or_word(from)?;
    word.parse().map(Some).map_err(D::Error::custom)
}

/// Reads `22`, `"tcp/22"` or `"reply"`.
pub(super) fn goal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ConnectTo>, D::Error> {
    let word = number_or_word(from)?;
    parse_connect_to(&word).map(Some).map_err(D::Error::custom)
}

fn number_or_word<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Word(String),
    }
    Ok(match Either::deserialize(from)? {
        Either::Number(number) => number.to_string(),
        Either::Word(word) => word,
    })
}
