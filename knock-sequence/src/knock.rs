//! A knock, and the words people write for it.

use knock_common::{packet, words};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Knocks in the order in which they are sent.
pub type Sequence = Vec<Knock>;

/// What a knock is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
}

impl Protocol {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What people write for a knock: `tcp/7000` and `udp/8000`, and what knockd's client takes: `7000`,
/// `7000:tcp` and `8000:udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word {
    /// What is sent, if that is written.
    pub protocol: Option<Protocol>,
    /// Where to; never 0.
    pub port: u16,
}

impl Word {
    /// The knock; a bare port is one of this protocol.
    #[must_use]
    pub fn knock(self, bare: Protocol) -> Knock {
        Knock {
            protocol: self.protocol.unwrap_or(bare),
            port: self.port,
        }
    }
}

/// One knock: `tcp/7000`.
///
/// It is read from the same as a [`Word`]; a bare port is TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Knock {
    /// What is sent.
    pub protocol: Protocol,
    /// Where to; never 0 in a knock that was read from a word.
    pub port: u16,
}

impl fmt::Display for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

impl FromStr for Knock {
    type Err = ParseKnockError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(word.parse::<Word>()?.knock(Protocol::Tcp))
    }
}

impl FromStr for Word {
    type Err = ParseKnockError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        if let Some((protocol, port)) = words::knock(word) {
            let protocol = protocol.map(Protocol::from);
            return Ok(Self { protocol, port });
        }
        Err(why_not(word))
    }
}

impl From<packet::Protocol> for Protocol {
    fn from(protocol: packet::Protocol) -> Self {
        match protocol {
            packet::Protocol::Tcp => Self::Tcp,
            packet::Protocol::Udp => Self::Udp,
        }
    }
}

/// What is wrong with a word that is not a knock.
fn why_not(word: &str) -> ParseKnockError {
    let parts = word.split_once('/').or_else(|| {
        word.split_once(':')
            .map(|(port, protocol)| (protocol, port))
    });
    let word = word.to_owned();
    match parts {
        Some((protocol, port)) if !protocol.is_empty() && !port.is_empty() => {
            if Protocol::from_word(protocol).is_none() {
                let protocol = protocol.to_owned();
                return ParseKnockError::Protocol { word, protocol };
            }
            let port = port.to_owned();
            ParseKnockError::Port { word, port }
        }
        None if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = word.clone();
            ParseKnockError::Port { word, port }
        }
        Some(_) | None => ParseKnockError::Form { word },
    }
}

/// Why a word is not a knock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKnockError {
    /// It lacks the protocol or the port.
    #[error("'{word}' is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000")]
    Form {
        /// What was written.
        word: String,
    },
    /// It names another protocol.
    #[error("'{word}' names the protocol '{protocol}': write tcp/PORT or udp/PORT")]
    Protocol {
        /// What was written.
        word: String,
        /// The part of it that should be a protocol.
        protocol: String,
    },
    /// It names a port that does not exist.
    #[error("'{word}' names the port '{port}': a port is a whole number from 1 to 65535")]
    Port {
        /// What was written.
        word: String,
        /// The part of it that should be a port.
        port: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_knocks() {
        let tcp = |port| Knock {
            protocol: Protocol::Tcp,
            port,
        };
        let udp = |port| Knock {
            protocol: Protocol::Udp,
            port,
        };
        let rows = [
            ("tcp", "tcp/7000", tcp(7000), "tcp/7000"),
            ("udp", "udp/8000", udp(8000), "udp/8000"),
            ("lowest port", "tcp/1", tcp(1), "tcp/1"),
            ("highest port", "udp/65535", udp(65535), "udp/65535"),
            ("leading zeros", "tcp/00022", tcp(22), "tcp/22"),
            ("knockd, no protocol", "7000", tcp(7000), "tcp/7000"),
            ("knockd, tcp", "7000:tcp", tcp(7000), "tcp/7000"),
            ("knockd, udp", "8000:udp", udp(8000), "udp/8000"),
        ];
        for (name, word, knock, written) in rows {
            assert_eq!(word.parse(), Ok(knock), "{name}: {word}");
            assert_eq!(knock.to_string(), written, "{name}: {word}");
        }
    }

    #[test]
    fn words_that_are_not() {
        const FORM: &str = "is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000";
        const PROTOCOL: &str = "write tcp/PORT or udp/PORT";
        const PORT: &str = "a port is a whole number from 1 to 65535";
        let rows = [
            ("empty", "", format!("'' {FORM}")),
            ("a word", "ssh", format!("'ssh' {FORM}")),
            ("no port", "tcp/", format!("'tcp/' {FORM}")),
            ("no protocol", "/7000", format!("'/7000' {FORM}")),
            ("only the separator", "/", format!("'/' {FORM}")),
            (
                "knockd, no protocol after the colon",
                "7000:",
                format!("'7000:' {FORM}"),
            ),
            ("knockd, no port", ":udp", format!("':udp' {FORM}")),
            ("a list", "tcp/7000,udp/8000", {
                format!("'tcp/7000,udp/8000' names the port '7000,udp/8000': {PORT}")
            }),
            ("bare negative", "-1", format!("'-1' {FORM}")),
            (
                "bare, too high",
                "65536",
                format!("'65536' names the port '65536': {PORT}"),
            ),
            (
                "port 0",
                "tcp/0",
                format!("'tcp/0' names the port '0': {PORT}"),
            ),
            (
                "one too high",
                "tcp/65536",
                format!("'tcp/65536' names the port '65536': {PORT}"),
            ),
            ("far too high", "udp/99999999999999999999", {
                format!("'udp/99999999999999999999' names the port '99999999999999999999': {PORT}")
            }),
            (
                "sign",
                "tcp/+7000",
                format!("'tcp/+7000' names the port '+7000': {PORT}"),
            ),
            (
                "negative",
                "tcp/-1",
                format!("'tcp/-1' names the port '-1': {PORT}"),
            ),
            (
                "blank",
                "tcp/ 7000",
                format!("'tcp/ 7000' names the port ' 7000': {PORT}"),
            ),
            (
                "other digits",
                "tcp/٧",
                format!("'tcp/٧' names the port '٧': {PORT}"),
            ),
            (
                "service name",
                "tcp/ssh",
                format!("'tcp/ssh' names the port 'ssh': {PORT}"),
            ),
            (
                "range",
                "tcp/1-9",
                format!("'tcp/1-9' names the port '1-9': {PORT}"),
            ),
            (
                "knockd, port 0",
                "0:udp",
                format!("'0:udp' names the port '0': {PORT}"),
            ),
            (
                "icmp",
                "icmp/7",
                format!("'icmp/7' names the protocol 'icmp': {PROTOCOL}"),
            ),
            (
                "capitals",
                "TCP/7000",
                format!("'TCP/7000' names the protocol 'TCP': {PROTOCOL}"),
            ),
            ("turned round", "7000/tcp", {
                format!("'7000/tcp' names the protocol '7000': {PROTOCOL}")
            }),
            ("knockd turned round", "tcp:7000", {
                format!("'tcp:7000' names the protocol '7000': {PROTOCOL}")
            }),
        ];
        for (name, word, error) in rows {
            let parsed = word.parse::<Knock>();
            assert_eq!(
                parsed.map_err(|e| e.to_string()),
                Err(error),
                "{name}: {word}"
            );
        }
    }
}
