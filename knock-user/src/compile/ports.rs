//! The port table.

use std::collections::BTreeMap;

use knock_common::{layout::PortRule, packet::Protocol};
use knock_sequence::{Knock, Ports};

use super::{Conflict, Input, decoys, flags::Flags, handshake};
use crate::{
    host::Host,
    model::settings::{Decoys, Exempt, Settings},
};

/// Rules of ports; the others are ordinary.
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

    /// Puts knocks that begin nothing where nothing else is.
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

    /// Puts decoys where nothing else is; returns those that were drawn.
    pub(super) fn decoys(
        &mut self,
        settings: &Settings,
        input: &mut Input<'_>,
    ) -> Result<Vec<u16>, Vec<Conflict>> {
        let decoy = match settings.has_handshakes() {
            true => PortRule::DECOY.with_handshake(),
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
                // A scan that only asks for connections passes decoys that answer: beside silent
                // knocks there has to be something that resets it.
                let beside = handshake::beside(settings);
                let taken = |port| self.has(Protocol::Tcp, port) || beside.contains(&port);
                decoys::draw(*count, range, taken, input.host, input.draw)?
            }
        };
        for &port in &drawn {
            // A sequence that changed may have it now.
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
        // It is asked in the middle of things.
        if let Some(index) = settings.next_line {
            self.put(Protocol::Tcp, index.port(), PortRule::EXEMPT);
        }
    }
}
