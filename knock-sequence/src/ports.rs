//! Ports and ranges of ports, as configuration files and the console have them.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use crate::{
    Invalid, Protocol,
    spelling::{self, port},
};

/// One port or a range of ports of one protocol: `tcp/22`, `udp/60000-61000`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ports {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The first port, at least 1.
    pub first: u16,
    /// The last port, at least `first`.
    pub last: u16,
}

impl Ports {
    /// Returns one TCP port.
    pub const fn tcp(port: u16) -> Self {
        Self {
            protocol: Protocol::Tcp,
            first: port,
            last: port,
        }
    }

    /// Returns every port of a protocol.
    pub const fn all(protocol: Protocol) -> Self {
        Self {
            protocol,
            first: 1,
            last: u16::MAX,
        }
    }

    /// Returns whether `other` has a port of these.
    pub fn overlaps(self, other: Self) -> bool {
        self.protocol == other.protocol && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol.name(), self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

type Parsed<T> = Result<T, Invalid>;

fn invalid<T>(reason: String) -> Parsed<T> {
    Err(Invalid::new(reason))
}

impl FromStr for Ports {
    type Err = Invalid;

    fn from_str(text: &str) -> Parsed<Self> {
        let Some((protocol, numbers)) = text.split_once('/') else {
            return invalid(without_protocol(text));
        };
        let Some(protocol) = spelling::protocol(protocol) else {
            return invalid(wrong_protocol(text, protocol, numbers));
        };
        let (first, last) = match numbers.split_once('-') {
            Some((first, last)) => (port_in(text, first)?, port_in(text, last)?),
            None => {
                let only = port_in(text, numbers)?;
                (only, only)
            }
        };
        if last < first {
            return invalid(format!(
                "{text:?} runs backwards: write \"{}/{last}-{first}\"",
                protocol.name()
            ));
        }
        Ok(Self {
            protocol,
            first,
            last,
        })
    }
}

/// Returns the port that `number`, a part of `text`, names.
fn port_in(text: &str, number: &str) -> Parsed<u16> {
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return invalid(format!(
            "{text:?} is not a port: write a protocol and a number, as in \"tcp/22\""
        ));
    }
    match port(number) {
        Some(port) => Ok(port),
        None => invalid(format!("{text:?} is not a port: ports go from 1 to 65535")),
    }
}

fn without_protocol(text: &str) -> String {
    // knockd writes the protocol behind the port, and may leave it out.
    let (number, protocol) = text.split_once(':').unwrap_or((text, "tcp"));
    match format!("{protocol}/{number}").parse::<Ports>() {
        Ok(ports) => format!("{text:?} is not a port: write the protocol first, as in \"{ports}\""),
        Err(_) => {
            format!("{text:?} is not a port: write a protocol and a number, as in \"tcp/22\"")
        }
    }
}

fn wrong_protocol(text: &str, protocol: &str, rest: &str) -> String {
    let lower = protocol.trim().to_ascii_lowercase();
    let swapped = format!("{rest}/{protocol}");
    for meant in [format!("{lower}/{}", rest.trim()), swapped] {
        if (meant.starts_with("tcp/") || meant.starts_with("udp/"))
            && let Ok(ports) = meant.parse::<Ports>()
        {
            return format!("{text:?} is not a port: write \"{ports}\"");
        }
    }
    format!("{text:?} is not a port: the protocol is tcp or udp, as in \"tcp/22\"")
}

/// Reads `1024-65535`.
///
/// # Errors
/// The form to write instead.
pub fn range(text: &str) -> Parsed<RangeInclusive<u16>> {
    let Some((first, last)) = text.split_once('-') else {
        return invalid(format!(
            "{text:?} is not a range of ports: write \"1024-65535\""
        ));
    };
    let (first, last) = (range_end(text, first)?, range_end(text, last)?);
    if last < first {
        return invalid(format!("{text:?} runs backwards: write \"{last}-{first}\""));
    }
    Ok(first..=last)
}

fn range_end(text: &str, number: &str) -> Parsed<u16> {
    match port(number) {
        Some(port) => Ok(port),
        None => invalid(format!(
            "{text:?} is not a range of ports: write two numbers from 1 to 65535, \
             as in \"1024-65535\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_they_are_read() {
        for text in ["tcp/22", "udp/60000-61000", "tcp/65535", "tcp/1"] {
            let written = text.parse::<Ports>().map(|ports| ports.to_string());
            assert_eq!(written.as_deref(), Ok(text));
        }
    }
}
