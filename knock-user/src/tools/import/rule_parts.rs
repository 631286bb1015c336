//! The common parts of rules of all firewall tools: sources, protocols, ports and chains.

use knock_common::packet::Protocol;
use knock_sequence::Ports;

/// The effect of a command for the source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Rule {
    Open(Vec<Ports>),
    Close(Vec<Ports>),
}

/// knockd's placeholder for the source.
pub(super) const SOURCE: &str = "%IP%";

/// Names of services that rules may have in place of ports, as in /etc/services.
pub const SERVICES: [(&str, u16); 18] = [
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("www", 80),
    ("pop3", 110),
    ("imap", 143),
    ("imap2", 143),
    ("https", 443),
    ("submission", 587),
    ("imaps", 993),
    ("pop3s", 995),
    ("openvpn", 1194),
    ("ms-wbt-server", 3389),
    ("mysql", 3306),
    ("postgresql", 5432),
];

pub(super) fn is_source(word: &str) -> bool {
    matches!(
        word.strip_prefix(SOURCE),
        Some("" | "/32" | "/128" | "/255.255.255.255")
    )
}

/// Combines protocols and port numbers.
#[derive(Debug, Default)]
pub(super) struct Match<'w> {
    pub(super) is_for_source: bool,
    pub(super) protocols: Vec<Protocol>,
    pub(super) ports: Option<&'w str>,
}

impl Match<'_> {
    /// Returns the rule for TCP unless another protocol is named.
    pub(super) fn for_tcp() -> Self {
        Self {
            protocols: vec![Protocol::Tcp],
            ..Self::default()
        }
    }

    pub(super) fn ports(&self) -> Option<Vec<Ports>> {
        if !self.is_for_source || self.protocols.is_empty() {
            return None;
        }
        let mut ports = Vec::new();
        for &protocol in &self.protocols {
            for item in self.ports?.split(',') {
                let (first, last) = item.split_once([':', '-']).unwrap_or((item, item));
                let (first, last) = (port(first.trim())?, port(last.trim())?);
                if last < first {
                    return None;
                }
                ports.push(Ports {
                    protocol,
                    first,
                    last,
                });
            }
        }
        Some(ports)
    }
}

fn port(word: &str) -> Option<u16> {
    let named = SERVICES.iter().find(|(name, _)| *name == word);
    match named {
        Some((_, port)) => Some(*port),
        None => word.parse().ok().filter(|&port| port > 0),
    }
}

pub(super) fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// Returns whether a chain handles packets to the host: `INPUT` and user-defined chains.
pub(super) fn is_input(chain: &str) -> bool {
    let chain = chain.to_ascii_uppercase();
    // Docker's chains see translated ports.
    let others = ["OUTPUT", "FORWARD", "ROUTING", "DOCKER"];
    !others.iter().any(|other| chain.contains(other))
}
