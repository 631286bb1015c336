//! A knock, and the two forms in which people write it.

use std::{fmt, str::FromStr};

use crate::{
    Invalid, Ports, Protocol,
    spelling::{port, protocol},
};

/// Knocks in the order in which they are sent.
pub type Sequence = Vec<Knock>;

/// One knock: a packet to one port.
///
/// Its text is strict, as in configuration files: `tcp/7000`. A [`KnockSpec`] is read more liberally.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Knock {
    /// TCP for a SYN, UDP for a datagram.
    pub protocol: Protocol,
    /// The destination port, at least 1 in a knock that was read from a text.
    pub port: u16,
}

impl From<Knock> for Ports {
    fn from(knock: Knock) -> Self {
        Self {
            protocol: knock.protocol,
            first: knock.port,
            last: knock.port,
        }
    }
}

impl fmt::Display for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ports::from(*self).fmt(f)
    }
}

impl FromStr for Knock {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let ports: Ports = text.parse()?;
        // Also a range of one port.
        if text.contains('-') {
            return Err(Invalid::new(format!(
                "{text:?} is a range, and a knock is one port, as in \"{}/{}\"",
                ports.protocol.name(),
                ports.first
            )));
        }
        Ok(Self {
            protocol: ports.protocol,
            port: ports.first,
        })
    }
}

/// A knock as people type it and as one-time files have it: `tcp/7000`, or one of knockd's forms
/// `7000`, `7000:tcp`, `8000:UDP`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct KnockSpec {
    /// The protocol; none for a bare port.
    pub protocol: Option<Protocol>,
    /// The port, at least 1.
    pub port: u16,
}

impl KnockSpec {
    /// Returns the knock; a bare port gets the protocol `bare`.
    #[must_use]
    pub fn knock(self, bare: Protocol) -> Knock {
        Knock {
            protocol: self.protocol.unwrap_or(bare),
            port: self.port,
        }
    }
}

impl FromStr for KnockSpec {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        let (protocol, number) = match (word.split_once('/'), word.split_once(':')) {
            (Some((name, number)), _) => (Some((name, protocol(name))), number),
            (None, Some((number, name))) => {
                // knockd's client writes UDP in capitals.
                (Some((name, protocol(&name.to_ascii_lowercase()))), number)
            }
            (None, None) if word.bytes().all(|byte| byte.is_ascii_digit()) => (None, word),
            (None, None) => return Err(not_a_knock(word)),
        };
        if number.is_empty() || protocol.is_some_and(|(name, _)| name.is_empty()) {
            return Err(not_a_knock(word));
        }
        let protocol = match protocol {
            None => None,
            Some((_, Some(protocol))) => Some(protocol),
            Some((name, None)) => {
                return Err(Invalid::new(format!(
                    "{word:?} names the protocol {name:?}: write tcp/PORT or udp/PORT"
                )));
            }
        };
        let port = port(number).ok_or_else(|| {
            Invalid::new(format!(
                "{word:?} names the port {number:?}: a port is a whole number from 1 to 65535"
            ))
        })?;
        Ok(Self { protocol, port })
    }
}

fn not_a_knock(word: &str) -> Invalid {
    Invalid::new(format!(
        "{word:?} is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_knock_is_read() {
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
            let read = word
                .parse::<KnockSpec>()
                .map(|word| word.knock(Protocol::Tcp));
            assert_eq!(read, Ok(knock), "{name}: {word}");
            assert_eq!(knock.to_string(), written, "{name}: {word}");
        }
    }

    #[test]
    fn a_range_is_not_a_knock() {
        for text in ["udp/8000-8010", "udp/8000-8000"] {
            let error = text.parse::<Knock>().unwrap_err().to_string();
            let expected = "is a range, and a knock is one port, as in \"udp/8000\"";
            assert_eq!(error, format!("{text:?} {expected}"));
        }
    }

    #[test]
    fn other_words_are_refused_with_the_reason() {
        const FORM: &str = "is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000";
        const PROTOCOL: &str = "write tcp/PORT or udp/PORT";
        const PORT: &str = "a port is a whole number from 1 to 65535";
        let rows = [
            ("empty", "", format!("\"\" {FORM}")),
            ("a word", "ssh", format!("\"ssh\" {FORM}")),
            ("no port", "tcp/", format!("\"tcp/\" {FORM}")),
            ("no protocol", "/7000", format!("\"/7000\" {FORM}")),
            ("only the separator", "/", format!("\"/\" {FORM}")),
            (
                "knockd, no protocol after the colon",
                "7000:",
                format!("\"7000:\" {FORM}"),
            ),
            ("knockd, no port", ":udp", format!("\":udp\" {FORM}")),
            ("a list", "tcp/7000,udp/8000", {
                format!("\"tcp/7000,udp/8000\" names the port \"7000,udp/8000\": {PORT}")
            }),
            ("bare negative", "-1", format!("\"-1\" {FORM}")),
            (
                "bare, too high",
                "65536",
                format!("\"65536\" names the port \"65536\": {PORT}"),
            ),
            (
                "port 0",
                "tcp/0",
                format!("\"tcp/0\" names the port \"0\": {PORT}"),
            ),
            (
                "one too high",
                "tcp/65536",
                format!("\"tcp/65536\" names the port \"65536\": {PORT}"),
            ),
            ("far too high", "udp/99999999999999999999", {
                format!(
                    "\"udp/99999999999999999999\" names the port \"99999999999999999999\": {PORT}"
                )
            }),
            (
                "sign",
                "tcp/+7000",
                format!("\"tcp/+7000\" names the port \"+7000\": {PORT}"),
            ),
            (
                "negative",
                "tcp/-1",
                format!("\"tcp/-1\" names the port \"-1\": {PORT}"),
            ),
            (
                "blank",
                "tcp/ 7000",
                format!("\"tcp/ 7000\" names the port \" 7000\": {PORT}"),
            ),
            (
                "other digits",
                "tcp/٧",
                format!("\"tcp/٧\" names the port \"٧\": {PORT}"),
            ),
            (
                "service name",
                "tcp/ssh",
                format!("\"tcp/ssh\" names the port \"ssh\": {PORT}"),
            ),
            (
                "range",
                "tcp/1-9",
                format!("\"tcp/1-9\" names the port \"1-9\": {PORT}"),
            ),
            (
                "knockd, port 0",
                "0:udp",
                format!("\"0:udp\" names the port \"0\": {PORT}"),
            ),
            (
                "icmp",
                "icmp/7",
                format!("\"icmp/7\" names the protocol \"icmp\": {PROTOCOL}"),
            ),
            (
                "capitals",
                "TCP/7000",
                format!("\"TCP/7000\" names the protocol \"TCP\": {PROTOCOL}"),
            ),
            ("turned round", "7000/tcp", {
                format!("\"7000/tcp\" names the protocol \"7000\": {PROTOCOL}")
            }),
            ("knockd turned round", "tcp:7000", {
                format!("\"tcp:7000\" names the protocol \"7000\": {PROTOCOL}")
            }),
        ];
        for (name, word, error) in rows {
            let parsed = word.parse::<KnockSpec>();
            assert_eq!(
                parsed.map_err(|error| error.to_string()),
                Err(error),
                "{name}: {word}"
            );
        }
    }
}
