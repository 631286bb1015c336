//! Builds the port table.

use std::collections::BTreeMap;

use knock_common::{layout::PortRule, packet::Protocol};
use knock_sequence::{Knock, Ports};

use super::{audience, conflict::Conflict, decoys, flags::Flags, handshake, input::Input};
use crate::{
    host::Host,
    model::settings::{Decoys, Exempt, Settings},
};

/// The rules of ports; unlisted ports are unused.
#[derive(Default)]
pub(super) struct PortTable {
    pub(super) rules: BTreeMap<(Protocol, u16), PortRule>,
}

impl PortTable {
    pub(super) fn put(&mut self, protocol: Protocol, port: u16, rule: PortRule) {
        self.rules.insert((protocol, port), rule);
    }

    pub(super) fn put_range(&mut self, ports: Ports, rule: PortRule) {
        for port in ports.first..=ports.last {
            self.put(ports.protocol, port, rule);
        }
    }

    pub(super) fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.rules.contains_key(&(protocol, port))
    }

    /// Marks the knock ports that have no rule yet, for knocks that are not first knocks.
    pub(super) fn fill(&mut self, ranges: impl Iterator<Item = Ports>, flags: &Flags) {
        for Ports {
            protocol,
            first,
            last,
        } in ranges
        {
            for port in first..=last {
                let class = flags.of_knock(Knock { protocol, port });
                let rule = PortRule::knock(class, 0);
                self.rules.entry((protocol, port)).or_insert(rule);
            }
        }
    }

    /// Places decoys on ports without a rule; returns those that were drawn.
    pub(super) fn decoys(
        &mut self,
        settings: &Settings,
        numbers: &[u16],
        input: &mut Input<'_>,
    ) -> Result<Vec<u16>, Vec<Conflict>> {
        let decoy = match settings.has_handshakes() {
            true => audience::decoy(&settings.doors, numbers),
            false => PortRule::DECOY,
        };
        let drawn = match (&settings.decoys, input.before) {
            (Decoys::Listed(listed), _) => {
                for &range in listed {
                    self.put_range(range, decoy);
                }
                return Ok(Vec::new());
            }
            (Decoys::Drawn { .. }, Some(before)) => before.tables.drawn.clone(),
            (Decoys::Drawn { count, range }, None) => {
                // Decoys that reply do not reset a scan that completes no handshake, so ports
                // beside silent knocks have to.
                let beside = handshake::beside(settings);
                let taken = |port| self.has(Protocol::Tcp, port) || beside.contains(&port);
                decoys::draw(*count, range, taken, input.host, input.draw)?
            }
        };
        for &port in &drawn {
            // A changed sequence may use the port now.
            if !self.has(Protocol::Tcp, port) {
                self.put(Protocol::Tcp, port, decoy);
            }
        }
        Ok(drawn)
    }

    pub(super) fn exempt(&mut self, settings: &Settings, host: &Host) {
        match &settings.exempt {
            Exempt::Listed(listed) => {
                for &range in listed {
                    self.put_range(range, PortRule::EXEMPT);
                }
            }
            Exempt::Listening => {
                for served in host.open_ports() {
                    self.put(served.protocol, served.port, PortRule::EXEMPT);
                }
            }
        }
        // A packet in the middle of a handshake arrives there.
        if let Some(index) = settings.next_line {
            self.put(Protocol::Tcp, index.port(), PortRule::EXEMPT);
        }
    }
}
