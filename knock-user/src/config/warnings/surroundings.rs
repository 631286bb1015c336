//! Warns of what the configuration does not cover on this host: unprotected interfaces, missing
//! addresses, translated ports.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use knock_sequence::{Knock, PortSet, Ports};

use super::{super::checked::Checked, Advice, listed};
use crate::{
    host::{Host, Translation, addresses::Link},
    model::{problem::Problem, settings::Exempt},
};

/// Kinds of interfaces on top of another one, where their frames are judged with their tags.
const ABOVE: [&str; 3] = ["vlan", "macvlan", "macvtap"];

impl Checked {
    /// Returns the warnings of a start or reload about this host, where `interfaces` are protected.
    pub fn surroundings(&self, host: &Host, interfaces: &[String]) -> Vec<Problem> {
        let mut advice = Advice {
            checked: self,
            host,
            problems: Vec::new(),
        };
        advice.targets();
        advice.unprotected(interfaces);
        advice.others_traffic(interfaces);
        advice.translated();
        advice.unread_rules();
        advice.metrics(interfaces);
        advice.problems.sort();
        advice.problems.dedup();
        advice.problems
    }

    /// Returns the interfaces of this host that are up, have addresses and are not among
    /// `interfaces`, in words.
    pub fn unprotected(&self, host: &Host, interfaces: &[String]) -> Option<String> {
        let advice = Advice {
            checked: self,
            host,
            problems: Vec::new(),
        };
        advice.open(interfaces)
    }

    /// Returns translated ports that lead to protected ones, and rules that can't be read, in
    /// words.
    pub fn translated(&self, host: &Host) -> Vec<String> {
        let mut advice = Advice {
            checked: self,
            host,
            problems: Vec::new(),
        };
        advice.translated();
        advice.unread_rules();
        let found = advice.problems.into_iter();
        found.map(|problem| problem.reason).collect()
    }

    /// Returns a note about protected ports on which no service listens now.
    pub fn unserved(&self, host: &Host) -> Option<Problem> {
        let protected = self.settings.protected().ranges();
        let is_served = |knock: &Knock| {
            let mut served = host.served.iter();
            served.any(|served| served == knock)
        };
        let unserved: Vec<_> = protected
            .into_iter()
            .filter(|ports| {
                !(ports.first..=ports.last).any(|port| {
                    is_served(&Knock {
                        protocol: ports.protocol,
                        port,
                    })
                })
            })
            .collect();
        (!unserved.is_empty()).then(|| Problem {
            line: None,
            key: String::new(),
            reason: format!(
                "no service of this host listens on these protected ports now: {}",
                listed(&unserved)
            ),
        })
    }
}

impl Advice<'_> {
    fn targets(&mut self) {
        if self.host.links.is_empty() {
            return;
        }
        for (index, door) in self.checked.settings.doors.iter().enumerate() {
            let Some(target) = door.target.filter(|&target| !self.host.has_address(target)) else {
                continue;
            };
            let passed_on = match self.host.forwards {
                true => ", unless it forwards such packets",
                false => "",
            };
            self.of_door(
                index,
                "target",
                format!(
                    "this host does not have the address {target}, so no client can open the \
                     door{passed_on}: name one that `ip address` lists"
                ),
            );
        }
    }

    /// Warns of interfaces that are not protected.
    fn unprotected(&mut self, interfaces: &[String]) {
        if let Some(reason) = self.open(interfaces) {
            self.of_file("interfaces", reason);
        }
    }

    fn open(&self, interfaces: &[String]) -> Option<String> {
        if interfaces.is_empty() {
            return None;
        }
        let open = self.host.unprotected(interfaces);
        let open: Vec<String> = open
            .filter(|link| !self.is_judged_below(link, interfaces))
            .map(|link| format!("{} ({})", link.name, listed(&link.addresses)))
            .collect();
        (!open.is_empty()).then(|| {
            format!(
                "not protected: {}; clients need no knock there",
                open.join(", ")
            )
        })
    }

    /// Warns of metrics that others than this host can read.
    fn metrics(&mut self, interfaces: &[String]) {
        let Some(at) = self.settings().metrics else {
            return;
        };
        let address = at.ip().to_canonical();
        let port = Ports::tcp(at.port());
        let has_door = self.settings().protected().touches(port);
        let is_protected = |link: &Link| self.host.is_among(link, interfaces);
        let is_met = |link: &&Link| {
            link.is_exposed()
                && (address.is_unspecified() || link.addresses.contains(&address))
                && !(has_door && is_protected(link))
        };
        let through: Vec<_> = self
            .host
            .links
            .iter()
            .filter(is_met)
            .map(|link| {
                let protected = if is_protected(link) {
                    "the protected "
                } else {
                    ""
                };
                format!("{protected}{}", link.name)
            })
            .collect();
        if address.is_loopback() || has_door && through.is_empty() {
            return;
        }
        let through = match through.as_slice() {
            [] => String::new(),
            through => format!(" through {}", listed(through)),
        };
        self.of_file(
            "metrics",
            format!(
                "everyone who reaches {at}{through} can read the metrics, which name doors and users: \
                 listen on 127.0.0.1, or protect {port} with a door"
            ),
        );
    }

    /// Returns whether packets of an interface have passed a protected one before.
    fn is_judged_below(&self, link: &Link, interfaces: &[String]) -> bool {
        let links = &self.host.links;
        let is_protected = |link: &Link| self.host.is_among(link, interfaces);
        let ports: Vec<&Link> = links
            .iter()
            .filter(|port| port.master == Some(link.index))
            .collect();
        let is_above = link
            .kind
            .as_deref()
            .is_some_and(|kind| ABOVE.contains(&kind));
        let carrier = links
            .iter()
            .find(|below| is_above && link.carrier == Some(below.index));
        (!ports.is_empty() && ports.into_iter().all(is_protected))
            || carrier.is_some_and(is_protected)
    }

    /// Warns of protected interfaces whose packets are mostly for other hosts.
    fn others_traffic(&mut self, interfaces: &[String]) {
        let host = self.host;
        let named = host.links.iter();
        let named = named.filter(|link| host.is_among(link, interfaces));
        let named: BTreeSet<&str> = named.map(|link| link.name.as_str()).collect();
        for name in named {
            let Some(link) = host.link(name) else {
                continue;
            };
            let master = host
                .links
                .iter()
                .find(|master| Some(master.index) == link.master);
            let kind = |link: &Link, kind: &str| link.kind.as_deref() == Some(kind);
            let reason = match master {
                Some(bridge) if kind(bridge, "bridge") => format!(
                    "{name} is a port of the bridge {}, so packets that it only forwards, such \
                     as those for virtual machines and containers, are filtered too: name {} to \
                     filter only packets for this host",
                    bridge.name, bridge.name
                ),
                Some(bond) if kind(bond, "bond") || kind(bond, "team") => format!(
                    "{name} is a port of {}, and packets that arrive on its other ports are not \
                     filtered: name {} instead",
                    bond.name, bond.name
                ),
                Some(_) | None if link.ethernet && kind(link, "tun") => format!(
                    "{name} is a tap, usually the network card of a virtual machine: packets \
                     from that machine are filtered, not those that reach this host from outside"
                ),
                Some(_) | None => continue,
            };
            self.of_file("interfaces", reason);
        }
    }

    /// Warns of ports that are translated to protected ones, and so are open.
    fn translated(&mut self) {
        let protected = self.settings().protected();
        let host = self.host;
        for translation in &host.rules.translations {
            let Translation {
                from,
                to,
                port: Some((first, last)),
            } = *translation
            else {
                continue;
            };
            let protocol = from.protocol;
            let is_here = to.is_none_or(|to| host.has_address(to));
            // A service of this host on the port may be the one to protect.
            let is_meant = |port| is_here || !host.served.contains(&Knock { protocol, port });
            let mut ports = first..=last;
            if !ports.any(|port| protected.has(protocol, port) && is_meant(port)) {
                continue;
            }
            let open = PortSet::new([from]).without(&protected);
            // A translation that keeps the port number opens no other port.
            let open = open
                .into_iter()
                .filter(|open| (open.first, open.last) != (first, last) || first != last);
            let to_ports = Ports {
                protocol,
                first,
                last,
            };
            let place = to.map_or_else(String::new, |to| format!(" of {to}"));
            let port = Knock {
                protocol,
                port: first,
            };
            let nothing = match first != last || host.served.contains(&port) {
                true => String::new(),
                false => format!("no service listens on {to_ports} here; "),
            };
            for from in open.collect::<Vec<_>>() {
                let (are, them) = match from.first == from.last {
                    true => ("is", "that port"),
                    false => ("are", "those ports"),
                };
                let reason = format!(
                    "{nothing}{from} {are} translated to {to_ports}{place}, after packets were \
                     filtered, so {from} {are} open: protect {them}"
                );
                self.of_file("", reason);
            }
        }
    }

    /// Warns of translation rules that can't be read, and of too many ports to exempt.
    fn unread_rules(&mut self) {
        let host = self.host;
        for unread in &host.rules.unread {
            self.of_file(
                "",
                format!(
                    "a port translation can't be read: {unread}; if it leads from another port \
                     to a protected one, that other port is open"
                ),
            );
        }
        if self.settings().exempt != Exempt::Listening {
            return;
        }
        let protected = self.settings().protected();
        let many = host.rules.translations.iter();
        let many = many.filter(|translation| !translation.is_served());
        for from in many
            .map(|translation| translation.from)
            .collect::<BTreeSet<_>>()
        {
            let rest = PortSet::new([from]).without(&protected);
            if !rest.is_empty() {
                let reason = format!(
                    "{from} are translated, too many to be exempt as ports on which the host \
                     listens: list those in use, as in `exempt = [\"tcp/443\"]`"
                );
                self.of_file("exempt", reason);
            }
        }
    }
}
