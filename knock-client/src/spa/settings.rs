//! The settings of a run with SPA: options, completed by a profile.

use super::key_file::{self, KeyFileError};
use super::words::{DoorName, GrantTime, HostPublicKey, PacketPort};
use crate::destination::Destination;
use clap::Args;
use knock_sequence::Invalid;
use knock_sequence::spa::{Channel, DoorAction, PublicKey, WeakKey};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The heading of `--help`.
const HEADING: &str = "Single packet authorization";

/// How long to wait for an answer if there is no connection to wait for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Options for SPA.
#[derive(Args, Clone, Debug)]
pub struct SpaOptions {
    /// Send one authenticated packet instead of knocks; KEY is the host's public key, knock1:…
    #[arg(
        long,
        value_name = "KEY",
        conflicts_with_all = [
            "knocks", "udp", "file", "handshake", "one_time", "next_line", "otp", "otp_env", "otp_secret",
            "otp_period", "otp_port_base", "otp_protocols", "otp_no_bind_source",
        ],
        help_heading = HEADING
    )]
    pub spa: Option<HostPublicKey>,

    /// Open this door [default: the first of your doors]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub door: Option<DoorName>,

    /// Open the door for this long; the host may give less [default: the door's open_for]
    #[arg(long = "for", value_name = "DURATION", help_heading = HEADING)]
    pub time: Option<GrantTime>,

    /// Close the door for this machine
    #[arg(long, conflicts_with = "time", help_heading = HEADING)]
    pub close: bool,

    /// Send the packet to this UDP port [default: udp/62201]
    // `proxy` has another argument `port`.
    #[arg(long = "port", value_name = "PORT", help_heading = HEADING)]
    pub spa_port: Option<PacketPort>,

    /// Use the private key in this file [default: ~/.config/knock/key]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pub key: Option<PathBuf>,

    /// Do not ask the host for an answer, and do not wait for one
    #[arg(long, help_heading = HEADING)]
    pub no_answer: bool,
}

/// The settings; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaSettings {
    /// The host's public key.
    pub host: Option<HostPublicKey>,
    /// The door.
    pub door: Option<DoorName>,
    /// For how long to open it.
    pub time: Option<GrantTime>,
    /// Whether to close it.
    pub close: bool,
    /// The port of the packet.
    pub port: Option<PacketPort>,
    /// The file with this client's private key.
    pub key: Option<PathBuf>,
    /// The address to open for; `::` and `0.0.0.0` for the packet's source.
    pub source: Option<IpAddr>,
    /// Whether the host is not asked for an answer.
    pub no_answer: bool,
    /// How long to wait for an answer or a connection.
    pub timeout: Option<Duration>,
}

/// Why no packet can be made.
#[derive(Debug, thiserror::Error)]
pub enum SpaError {
    /// An option needs the host's key.
    #[error(
        "{0} needs the public key of the host: give --spa knock1:…, or name a profile with the key spa"
    )]
    NoHost(&'static str),
    /// The host's key is wrong.
    #[error("--spa: {0}")]
    Host(Invalid),
    /// This client's key is unusable.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The host's key is weak.
    #[error("the host's key: {0}")]
    Weak(#[from] WeakKey),
    /// There is nothing to connect to behind a door that is being closed.
    #[error("--close closes the door, so there is nothing to connect to: leave one of them out")]
    CloseAndConnect,
    /// The port would come from an answer that is not wanted.
    #[error(
        "--then-connect reply takes the port from the host's answer: leave --no-answer out, or name the port"
    )]
    ReplyWithoutAnswer,
    /// The host's key is this client's own.
    #[error(
        "--spa has the public key of {}, which is this machine's own: give the host's, which \
         `knock-user keygen` prints there",
        .0.display()
    )]
    Own(PathBuf),
}

/// The checked settings, from which packets are made.
#[derive(Clone, Debug)]
pub struct CheckedSpa {
    /// The keys.
    pub(super) channel: Channel,
    /// The door.
    pub(super) door: Option<DoorName>,
    /// Requested seconds; 0 for the door's `open_for`.
    pub(super) seconds: u32,
    /// The action for the door.
    pub(super) action: DoorAction,
    /// The port of the packet.
    pub(super) port: PacketPort,
    /// Whether an answer is wanted.
    pub(super) answer: bool,
    /// How long to wait for it.
    pub(super) answer_timeout: Duration,
    source: Option<IpAddr>,
    /// The file of the private key.
    key_file: PathBuf,
}

impl SpaOptions {
    /// Returns the settings.
    #[must_use]
    pub fn settings(&self, source: Option<IpAddr>, timeout: Option<Duration>) -> SpaSettings {
        SpaSettings {
            host: self.spa.clone(),
            door: self.door.clone(),
            time: self.time,
            close: self.close,
            port: self.spa_port,
            key: self.key.clone(),
            source,
            no_answer: self.no_answer,
            timeout,
        }
    }
}

impl SpaSettings {
    /// Returns these settings, completed by those of a profile.
    #[must_use]
    pub fn or(self, profile: Self) -> Self {
        Self {
            host: self.host.or(profile.host),
            door: self.door.or(profile.door),
            // A door that is to be closed needs no duration.
            time: self.time.or(profile.time).filter(|_| !self.close),
            close: self.close,
            port: self.port.or(profile.port),
            key: self.key.or(profile.key),
            source: self.source.or(profile.source),
            no_answer: self.no_answer,
            timeout: self.timeout.or(profile.timeout),
        }
    }

    /// Returns an option that has no meaning without SPA, if there is one.
    #[must_use]
    pub fn lone_option(&self) -> Option<&'static str> {
        [
            (self.door.is_some(), "--door"),
            (self.time.is_some(), "--for"),
            (self.close, "--close"),
            (self.port.is_some(), "--port"),
            (self.key.is_some(), "--key"),
            (self.no_answer, "--no-answer"),
        ]
        .into_iter()
        .find_map(|(is_there, name)| is_there.then_some(name))
    }

    /// Checks the settings and reads the key.
    ///
    /// # Errors
    ///
    /// A key is missing or wrong.
    pub fn check(self) -> Result<CheckedSpa, SpaError> {
        let host: PublicKey = match self.host {
            Some(host) => host.key().map_err(SpaError::Host)?,
            None => return Err(SpaError::NoHost("single packet authorization")),
        };
        let path = match self.key {
            Some(path) => path,
            None => key_file::default_path()?,
        };
        let own = key_file::read(&path)?;
        if own.public() == &host {
            return Err(SpaError::Own(path));
        }
        Ok(CheckedSpa {
            channel: Channel::new(&own, &host)?,
            door: self.door,
            seconds: self.time.map_or(0, GrantTime::seconds),
            action: if self.close {
                DoorAction::Close
            } else {
                DoorAction::Open
            },
            port: self.port.unwrap_or_default(),
            answer: !self.no_answer,
            answer_timeout: self.timeout.unwrap_or(ANSWER_TIMEOUT),
            source: self.source.map(|source| source.to_canonical()),
            key_file: path,
        })
    }
}

impl CheckedSpa {
    /// Returns the address to open for, where packets to the destination have this source; `None` for
    /// the packet's source.
    ///
    /// A private IPv4 address is most likely translated on the way. With two families, a given
    /// address applies to its own family only.
    pub(crate) fn source(
        &self,
        own: IpAddr,
        destination: &Destination,
        has_several: bool,
    ) -> Option<IpAddr> {
        match self.source {
            Some(given) if given.is_unspecified() => None,
            Some(given) if !has_several || given.is_ipv4() == destination.at(0).is_ipv4() => {
                Some(given)
            }
            Some(_) | None => Some(own.to_canonical()).filter(is_global),
        }
    }

    /// Returns the file of the private key.
    pub(crate) fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// Returns whether the packet closes the door.
    pub(crate) fn closes(&self) -> bool {
        self.action == DoorAction::Close
    }

    /// Returns whether the host is asked for an answer.
    pub(crate) fn is_answered(&self) -> bool {
        self.answer
    }

    /// Returns the port of the packet.
    pub(crate) fn port(&self) -> PacketPort {
        self.port
    }

    /// Returns the door, if one was named.
    pub(crate) fn door(&self) -> Option<&DoorName> {
        self.door.as_ref()
    }

    /// Returns the seconds wanted, if they were given.
    pub(crate) fn seconds(&self) -> Option<u32> {
        (self.seconds > 0).then_some(self.seconds)
    }

    /// Returns what the packet does with the door: `open` or `close`.
    pub(crate) fn action_text(&self) -> &'static str {
        match self.action {
            DoorAction::Open => "open",
            DoorAction::Close => "close",
        }
    }

    /// Returns the door in words.
    pub(super) fn door_text(&self) -> String {
        match &self.door {
            Some(door) => format!("the door {door}"),
            None => "the door".to_owned(),
        }
    }
}

/// Returns whether other hosts most likely see this address.
fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V6(_) => true,
        IpAddr::V4(address) => {
            // RFC 6598: the shared address space of carrier-grade NAT.
            let is_shared = address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64;
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || is_shared)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use knock_sequence::spa::PrivateKey;
    use std::net::SocketAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn spa(source: Option<IpAddr>) -> CheckedSpa {
        let [host, own] = [0x11, 0x22].map(|octet| PrivateKey::from_octets([octet; 32]));
        CheckedSpa {
            channel: Channel::new(&own, host.public()).expect("keys"),
            door: None,
            seconds: 0,
            action: DoorAction::Open,
            port: PacketPort::default(),
            answer: true,
            answer_timeout: ANSWER_TIMEOUT,
            source,
            key_file: PathBuf::new(),
        }
    }

    #[test]
    fn an_address_that_others_see_is_bound() {
        for (name, own, bound) in [
            ("a public address", "203.0.113.7", true),
            ("a private address", "10.1.2.3", false),
            ("another private address", "172.31.255.1", false),
            ("the usual private address", "192.168.1.2", false),
            ("behind a carrier", "100.64.0.1", false),
            ("the last one behind a carrier", "100.127.255.255", false),
            ("beside a carrier's", "100.128.0.1", true),
            ("loopback", "127.0.0.1", false),
            ("link-local", "169.254.1.1", false),
            ("IPv6", "2001:db8::7", true),
            ("a private IPv6 address", "fd00::7", true),
            ("IPv6 link-local", "fe80::7", true),
            ("IPv4 in IPv6", "::ffff:10.0.0.1", false),
        ] {
            let destination = Destination::from(SocketAddr::new(ip("192.0.2.1"), 0));
            let expected = bound.then(|| ip(own));
            assert_eq!(
                spa(None).source(ip(own), &destination, false),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn a_given_address_takes_the_place_of_the_one_in_the_route() {
        let v4 = Destination::from(SocketAddr::new(ip("192.0.2.1"), 0));
        let v6 = Destination::from(SocketAddr::new(ip("2001:db8::1"), 0));
        let (own, given) = (ip("198.51.100.7"), ip("203.0.113.7"));
        for (name, source, destination, has_several, expected) in [
            ("given", given, v4, false, Some(given)),
            ("of the other family", given, v6, false, Some(given)),
            ("of one of both families", given, v4, true, Some(given)),
            ("not of this family", given, v6, true, Some(own)),
            ("whichever", ip("::"), v4, false, None),
            ("whichever, in IPv4", ip("0.0.0.0"), v4, true, None),
        ] {
            let found = spa(Some(source)).source(own, &destination, has_several);
            assert_eq!(found, expected, "{name}");
        }
    }
}
