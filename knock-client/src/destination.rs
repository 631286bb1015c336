//! The address to knock on, from the name of a host.

use crate::refused;
use knock_sequence::Invalid;
use knock_sequence::terminal::harmless;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// Returns whether a word can be a name or an address of a host: it is in files, such as ssh's, where a line end or a
/// space would begin something else.
pub(crate) fn can_be_host(word: &str) -> bool {
    let fits = |c: char| !c.is_whitespace() && c != '/';
    !word.is_empty() && word.chars().all(fits) && matches!(harmless(word), Cow::Borrowed(_))
}

/// The versions of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The address to knock on; an IPv6 link-local one keeps its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination(SocketAddr);

impl Destination {
    /// Looks the name up; an address in text form needs no lookup.
    ///
    /// # Errors
    ///
    /// The name does not exist, or has no address of the wanted family.
    pub fn resolve(host: &str, family: Option<Family>) -> Result<Resolved, ResolveError> {
        choose(host, family, &lookup(host)?)
    }

    /// Looks the name up and returns one address of each family that it has.
    ///
    /// # Errors
    ///
    /// The name does not exist.
    pub fn resolve_both(host: &str) -> Result<Vec<Self>, ResolveError> {
        Ok(choose(host, None, &lookup(host)?)?.one_of_each())
    }

    /// Returns the address with this port.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        let mut address = self.0;
        address.set_port(port);
        address
    }

    /// Returns this machine's source address for packets to the destination; nothing is sent.
    ///
    /// # Errors
    ///
    /// This machine has no route to the destination.
    pub fn own_address(&self) -> io::Result<IpAddr> {
        // Any port but 0, which can't be connected to.
        let socket = connected_socket(self.at(9))?;
        Ok(socket.local_addr()?.ip().to_canonical())
    }

    /// Returns the version of IP.
    #[must_use]
    pub fn family(&self) -> Family {
        if self.0.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }
}

impl From<SocketAddr> for Destination {
    /// Returns the destination of an address, whose port does not matter.
    fn from(mut address: SocketAddr) -> Self {
        address.set_port(0);
        Self(address)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => write!(f, "{}%{}", v6.ip(), v6.scope_id()),
            SocketAddr::V4(_) | SocketAddr::V6(_) => self.0.ip().fmt(f),
        }
    }
}

/// Returns a socket that sends to an address, and receives from it only.
pub(crate) fn connected_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket)
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The address to knock on: the first one, in the system's order of preference.
    pub first: Destination,
    /// The other addresses of the families that were asked for.
    pub others: Vec<Destination>,
}

impl Resolved {
    /// Returns the first address of each family.
    fn one_of_each(self) -> Vec<Destination> {
        let Self { first, others } = self;
        let mut others = others.into_iter();
        let other = others.find(|other| other.family() != first.family());
        [first].into_iter().chain(other).collect()
    }
}

fn lookup(host: &str) -> Result<Vec<Destination>, ResolveError> {
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|cause| ResolveError::Unknown {
            host: host.to_owned(),
            cause,
        })?;
    Ok(found.map(Destination).collect())
}

fn choose(
    host: &str,
    family: Option<Family>,
    found: &[Destination],
) -> Result<Resolved, ResolveError> {
    let mut wanted = found
        .iter()
        .copied()
        .filter(|destination| family.is_none_or(|f| f == destination.family()));
    match (wanted.next(), family) {
        (Some(first), _) => Ok(Resolved {
            first,
            others: wanted.collect(),
        }),
        (None, Some(family)) if !found.is_empty() => Err(ResolveError::Family {
            host: host.to_owned(),
            family,
            found: found.to_vec(),
        }),
        (None, _) => Err(ResolveError::Unknown {
            host: host.to_owned(),
            cause: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        }),
    }
}

/// Why a host has no address to knock on.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name has no address.
    #[error(
        "cannot find '{host}': {}; check the spelling, or give the address instead",
        refused::plain(cause)
    )]
    Unknown {
        /// The name.
        host: String,
        /// The resolver's error.
        cause: io::Error,
    },
    /// The name has addresses of the other family only.
    #[error(
        "'{host}' has no {family} address, only {}; leave out {} or use {}",
        list(found), family.option(), family.other().option()
    )]
    Family {
        /// The name.
        host: String,
        /// The wanted family.
        family: Family,
        /// The addresses that it has.
        found: Vec<Destination>,
    },
}

/// Joins the destinations with commas.
pub(crate) fn list(destinations: &[Destination]) -> String {
    destinations
        .iter()
        .map(Destination::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Which versions of IP to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// The one that the system prefers.
    #[default]
    Any,
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
    /// Each that the host has.
    #[serde(rename = "dual-stack")]
    DualStack,
}

impl Families {
    /// Returns the only version to use, if just one is wanted.
    #[must_use]
    pub fn only(self) -> Option<Family> {
        match self {
            Self::V4 => Some(Family::V4),
            Self::V6 => Some(Family::V6),
            Self::Any | Self::DualStack => None,
        }
    }
}

/// Reads the address that a host sees.
///
/// # Errors
///
/// The text is not an address; the error has the cure.
pub(crate) fn parse_source(word: &str) -> Result<IpAddr, Invalid> {
    word.parse().map_err(|_error| {
        Invalid::new(format!(
            "{word:?} is not an IP address: write one such as 203.0.113.7 or 2001:db8::7"
        ))
    })
}

/// Reads the key `source` of a profile.
pub(crate) fn source<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    let word = String::deserialize(from)?;
    parse_source(&word).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddrV6;

    fn destination(address: &str) -> Destination {
        Destination::from(SocketAddr::new(address.parse().expect("an address"), 9))
    }

    struct Row {
        name: &'static str,
        family: Option<Family>,
        found: &'static [&'static str],
        chosen: Result<&'static [&'static str], &'static str>,
    }

    #[test]
    fn the_first_address_of_the_wanted_family_is_chosen() {
        const BOTH: &[&str] = &["2001:db8::1", "192.0.2.1", "192.0.2.2"];
        const ONLY_V4: &[&str] = &["192.0.2.1"];
        let (any, v4, v6) = (None, Some(Family::V4), Some(Family::V6));
        let no_v6 = "'h' has no IPv6 address, only 192.0.2.1; leave out -6 or use -4";
        let nothing = "cannot find 'h': the name has no address; \
                       check the spelling, or give the address instead";
        let rows = [
            Row {
                name: "any of both",
                family: any,
                found: BOTH,
                chosen: Ok(BOTH),
            },
            Row {
                name: "IPv4 of both",
                family: v4,
                found: BOTH,
                chosen: Ok(&BOTH[1..]),
            },
            Row {
                name: "IPv6 of both",
                family: v6,
                found: BOTH,
                chosen: Ok(&BOTH[..1]),
            },
            Row {
                name: "IPv4 of IPv4",
                family: v4,
                found: ONLY_V4,
                chosen: Ok(ONLY_V4),
            },
            Row {
                name: "IPv6 of IPv4",
                family: v6,
                found: ONLY_V4,
                chosen: Err(no_v6),
            },
            Row {
                name: "nothing",
                family: any,
                found: &[],
                chosen: Err(nothing),
            },
            Row {
                name: "IPv4 of nothing",
                family: v4,
                found: &[],
                chosen: Err(nothing),
            },
        ];
        for Row {
            name,
            family,
            found,
            chosen,
        } in rows
        {
            let destinations = |addresses: &[&str]| -> Vec<Destination> {
                addresses
                    .iter()
                    .map(|address| destination(address))
                    .collect()
            };
            let expected = chosen.map(destinations).map_err(str::to_owned);
            let got = choose("h", family, &destinations(found))
                .map(|Resolved { first, others }| [vec![first], others].concat())
                .map_err(|e| e.to_string());
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn the_first_address_of_each_family_is_chosen() {
        let rows: [(&[&str], &[&str]); 3] = [
            (
                &["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"],
                &["2001:db8::1", "192.0.2.1"],
            ),
            (&["192.0.2.1", "2001:db8::1"], &["192.0.2.1", "2001:db8::1"]),
            (&["192.0.2.1", "192.0.2.2"], &["192.0.2.1"]),
        ];
        for (found, each) in rows {
            let destinations = |addresses: &[&str]| -> Vec<Destination> {
                addresses
                    .iter()
                    .map(|address| destination(address))
                    .collect()
            };
            let resolved = choose("h", None, &destinations(found)).expect("addresses");
            assert_eq!(resolved.one_of_each(), destinations(each), "{found:?}");
        }
    }

    #[test]
    fn literal_addresses_need_no_lookup() {
        for address in ["127.0.0.1", "::1", "2001:db8::7"] {
            let resolved = Destination::resolve(address, None).expect(address);
            assert_eq!(
                resolved,
                Resolved {
                    first: destination(address),
                    others: vec![]
                },
                "{address}"
            );
            assert_eq!(resolved.first.to_string(), address);
        }
    }

    #[test]
    fn a_scope_is_kept_and_shown() {
        let ip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let scoped = Destination::from(SocketAddr::V6(SocketAddrV6::new(ip, 9, 0, 3)));
        assert_eq!(scoped.to_string(), "fe80::1%3");
        assert_eq!(
            scoped.at(7000),
            SocketAddr::V6(SocketAddrV6::new(ip, 7000, 0, 3))
        );
    }
}
