//! What this host is like, as far as a configuration depends on it.

use std::ops::RangeInclusive;

use knock_common::packet::Protocol;

use crate::config::checked::Knock;

/// Facts about a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// Local ports of its own connections.
    pub ephemeral: RangeInclusive<u16>,
    /// Ports of these that it does not use.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// Ports on which it listens for others.
    pub served: Vec<Knock>,
}

impl Default for Host {
    /// A host that listens nowhere, with Linux's own ephemeral range.
    fn default() -> Self {
        Self {
            ephemeral: 32_768..=60_999,
            reserved: Vec::new(),
            served: Vec::new(),
        }
    }
}

impl Host {
    /// Whether something listens on a TCP port.
    pub fn listens_on_tcp(&self, port: u16) -> bool {
        self.served.contains(&Knock {
            protocol: Protocol::Tcp,
            port,
        })
    }

    /// Whether a port may become the local port of one of the host's own connections.
    pub fn may_use(&self, port: u16) -> bool {
        self.ephemeral.contains(&port) && !self.reserved.iter().any(|range| range.contains(&port))
    }
}
