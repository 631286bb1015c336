//! Time-based sequences as a client derives them.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use knock_common::{otp::Octets, packet::Protocol, secret::Secret};

/// A door with time-based sequences, as both sides know it.
#[derive(Clone, Debug)]
pub struct Otp {
    /// The secret.
    pub secret: String,
    /// Seconds in a period.
    pub period: u64,
    /// The lowest port.
    pub base: u16,
    /// The protocols of a half.
    pub protocols: Vec<Protocol>,
    /// Whether a second half follows, which differs for each source.
    pub bind_source: bool,
    /// How many periods before and after the current one are accepted.
    pub skew: u64,
}

impl Otp {
    /// Returns a door whose period does not change in the next minutes.
    pub fn steady(secret: &str) -> Self {
        const MARGIN: u64 = 600;
        let now = unix();
        let is_steady = |period: &u64| (MARGIN..period - MARGIN).contains(&(now % period));
        Self {
            period: (3600..).find(is_steady).unwrap_or(3600),
            ..Self::every(1, secret)
        }
    }

    /// Returns a sequence that changes every this many seconds.
    pub fn every(period: u64, secret: &str) -> Self {
        Self {
            secret: secret.to_owned(),
            period,
            base: 20_000,
            protocols: vec![Protocol::Tcp, Protocol::Udp, Protocol::Tcp],
            bind_source: true,
            skew: 1,
        }
    }

    /// Returns the door's key in a configuration.
    pub fn key(&self) -> String {
        let protocols: Vec<&str> = self.protocols.iter().map(|p| p.name()).collect();
        format!(
            "otp = {{ secret = {:?}, period = \"{}s\", port_base = {}, protocols = {protocols:?}, \
             bind_source = {}, skew = {} }}",
            self.secret, self.period, self.base, self.bind_source, self.skew
        )
    }

    /// Returns the number of the current period.
    pub fn now(&self) -> u64 {
        unix() / self.period
    }

    /// Returns the knocks of a source in a period.
    ///
    /// # Panics
    /// The secret is not valid.
    #[track_caller]
    pub fn knocks(&self, period: u64, source: IpAddr) -> Vec<(Protocol, u16)> {
        let secret = Secret::new(self.secret.as_bytes());
        let Some(secret) = secret else {
            panic!("{:?} is not a secret", self.secret);
        };
        let bound = self.bind_source.then(|| Some(source.into()));
        let halves = [None].into_iter().chain(bound);
        let half = |source| {
            let octets = Octets::of(&secret, source, period);
            let knock = move |(number, &protocol)| (protocol, octets.port(self.base, number));
            (0..).zip(&self.protocols).map(knock)
        };
        halves.flat_map(half).collect()
    }

    /// Returns the same in words, as [`crate::source::Source::knock`] has them.
    #[track_caller]
    pub fn words(&self, period: u64, source: IpAddr) -> String {
        words(&self.knocks(period, source))
    }
}

/// Knocks in words.
pub fn words(knocks: &[(Protocol, u16)]) -> String {
    let word = |(protocol, port): &(Protocol, u16)| format!("{}/{port}", protocol.name());
    let words: Vec<String> = knocks.iter().map(word).collect();
    words.join(" ")
}

/// Seconds since 1970.
pub fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
