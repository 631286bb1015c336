//! Warns of ports that the host, or a host that it masquerades, uses for outgoing connections.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{Advice, listed};
use crate::{
    config::otp_rules,
    model::settings::{Decoys, Dynamic, Otherwise},
};
use knock_common::packet::Protocol;
use knock_sequence::{Knock, PortSet, Ports};

/// With fewer ephemeral ports, a host that opens many connections to one other runs out of them.
const EPHEMERAL_LEAST: u32 = 1024;
/// The kernel reads one page less one octet of the list (`proc_do_large_bitmap`).
const LIST_MOST: usize = 4095;
/// The first port that any user may listen on.
const UNPRIVILEGED: u16 = 1024;

impl Advice<'_> {
    /// Warns of ephemeral ports in the configuration: replies to the host's own connections would
    /// count as knocks or be dropped.
    pub(super) fn ephemeral_ports(&mut self) {
        let mut reserve: Vec<Ports> = Vec::new();
        let mut found: Vec<(Option<usize>, &str, String)> = Vec::new();
        let places = &self.checked.places;
        for (index, door) in self.settings().doors.iter().enumerate() {
            let mut knocks: Vec<Knock> = door.knock.clone();
            knocks.retain(|knock| self.host.may_use(knock.port));
            knocks.sort();
            knocks.dedup();
            if !knocks.is_empty() {
                let what = format!(
                    "{} for connections of its own, and replies to them would count as knocks",
                    listed(&knocks)
                );
                found.push((places.of_door(index, "knock"), "knock", what));
                reserve.extend(knocks.into_iter().map(Ports::from));
            }
            if let Some(Dynamic::Otp(otp)) = &door.dynamic {
                let timed = self.usable(&otp.sequences.ports().collect::<Vec<_>>());
                if !timed.is_empty() {
                    let what = format!(
                        "{} for connections of its own, and replies to them would count as knocks",
                        listed(&timed)
                    );
                    found.push((places.of_door(index, "otp"), "otp", what));
                    reserve.extend(timed);
                }
            }
            let opened = self.usable(door.opened());
            if !opened.is_empty() {
                let what = format!(
                    "{} for connections of its own, and replies to them would be \
                     dropped",
                    listed(&opened)
                );
                found.push((places.of_door(index, "open"), "open", what));
                reserve.extend(opened);
            }
        }
        let file_line = |key: &str| places.keys.get(key).copied();
        let protected = self.usable(&self.settings().protect);
        if !protected.is_empty() {
            let what = format!(
                "{} for connections of its own, and replies to them would be dropped",
                listed(&protected)
            );
            found.push((file_line("protect"), "protect", what));
            reserve.extend(protected);
        }
        if let Some(spa) = self.settings().spa() {
            let usable = self.usable(&spa.ports);
            if !usable.is_empty() && spa.otherwise == Otherwise::Drop {
                let what = format!(
                    "{} for connections of its own, and replies to them would be dropped",
                    listed(&usable)
                );
                found.push((places.of_spa("ports"), "ports", what));
                reserve.extend(usable);
            }
        }
        if let Decoys::Listed(decoys) = &self.settings().decoys {
            let decoys = self.usable(decoys);
            if !decoys.is_empty() {
                let what = format!(
                    "{} for connections of its own, and replies to them would be \
                     dropped",
                    listed(&decoys)
                );
                found.push((file_line("decoys"), "decoys", what));
                reserve.extend(decoys);
            }
        }
        let cure = self.cure(&reserve);
        for (line, key, what) in found {
            self.add(line, key, format!("this host may use {what}; {cure}"));
        }
        self.masqueraded();
    }

    /// Returns how to keep the host's own sockets off these ports.
    fn cure(&self, reserve: &[Ports]) -> String {
        let reserved = self.reserved_ports(reserve);
        let ephemeral = &self.host.ephemeral;
        let all = u32::from(*ephemeral.end()) + 1 - u32::from(*ephemeral.start());
        let taken = reserved.count(as_tcp(ephemeral.clone()));
        if all - taken >= EPHEMERAL_LEAST {
            let list = spelled(&reserved);
            if list.len() > LIST_MOST {
                return format!(
                    "to reserve all of them takes more than the {LIST_MOST} characters that the \
                     kernel accepts in ip_local_reserved_ports: use ports outside {}-{}",
                    ephemeral.start(),
                    ephemeral.end()
                );
            }
            return format!(
                "reserve the ports with `sysctl -w net.ipv4.ip_local_reserved_ports={list}`, and \
                 set the same in /etc/sysctl.d"
            );
        }
        let too_many = format!(
            "to reserve the ports would leave {} of its {all} ports for its own connections, \
             which is too few",
            all - taken
        );
        match self.other_range() {
            Some(range) => format!(
                "{too_many}: move its range with `sysctl -w net.ipv4.ip_local_port_range=\"{} \
                 {}\"`, and set the same in /etc/sysctl.d",
                range.start(),
                range.end()
            ),
            None => format!("{too_many}: use fewer ports"),
        }
    }

    /// Returns the longest range of unused ports, if it is long enough for the host's own
    /// connections.
    fn other_range(&self) -> Option<RangeInclusive<u16>> {
        let settings = self.settings();
        let knocks = settings.doors.iter().flat_map(|door| &door.knock);
        let knocks = knocks.copied().map(Ports::from);
        let timed = otp_rules::ports(settings);
        let decoys: &[Ports] = match &settings.decoys {
            Decoys::Listed(listed) => listed,
            Decoys::Drawn { .. } => &[],
        };
        let protected = settings.protected().ranges();
        let all = protected.into_iter().chain(knocks).chain(timed);
        let all = all.chain(decoys.iter().copied());
        let all = all.chain(settings.spa_ports().iter().copied());
        let reserved = self.host.reserved.iter().cloned().map(as_tcp);
        let taken = PortSet::new(
            all.map(|ports| as_tcp(ports.first..=ports.last))
                .chain(reserved),
        );
        let free = PortSet::new([as_tcp(UNPRIVILEGED..=u16::MAX)]).without(&taken);
        let longest = free
            .into_iter()
            .max_by_key(|ports| ports.last - ports.first)?;
        // The kernel requires ends of different parity.
        let last = longest.last - u16::from(longest.first % 2 == longest.last % 2);
        let length = u32::from(last) + 1 - u32::from(longest.first);
        (length >= EPHEMERAL_LEAST).then_some(longest.first..=last)
    }

    /// Warns of ports that masqueraded connections may use, although the host reserves them.
    fn masqueraded(&mut self) {
        if !self.host.forwards {
            return;
        }
        let settings = self.settings();
        let knocks = settings.doors.iter().filter(|door| !door.knock_pass);
        let knocks: Vec<Ports> = knocks
            .flat_map(|door| &door.knock)
            .copied()
            .map(Ports::from)
            .collect();
        let timed = otp_rules::ports(settings);
        let all = settings.protected().ranges().into_iter();
        let all = all.chain(knocks).chain(timed);
        let all = all.chain(settings.spa_ports().iter().copied());
        let range = self.host.ephemeral.clone();
        let found: BTreeSet<Ports> = all
            .filter(|ports| ports.first <= *range.end() && *range.start() <= ports.last)
            .collect();
        if found.is_empty() {
            return;
        }
        let found: Vec<Ports> = found.into_iter().collect();
        let reason = format!(
            "this host forwards packets, and a connection that it masquerades, such as one of a \
             container, may use {} as its port: replies to it would be dropped, or count as \
             knocks; ip_local_reserved_ports does not prevent that, so use ports outside {}-{}",
            listed(&found),
            range.start(),
            range.end()
        );
        self.of_file("", reason);
    }

    /// Returns those of `ranges` in which the host's own connections may get a port.
    fn usable(&self, ranges: &[Ports]) -> Vec<Ports> {
        ranges
            .iter()
            .copied()
            .filter(|ports| (ports.first..=ports.last).any(|port| self.host.may_use(port)))
            .collect()
    }

    /// Returns the host's reserved ports and `more` in its ephemeral range, since writing the list
    /// replaces it.
    fn reserved_ports(&self, more: &[Ports]) -> PortSet {
        let ephemeral = &self.host.ephemeral;
        let clipped = more.iter().map(|ports| {
            let first = ports.first.max(*ephemeral.start());
            first..=ports.last.min(*ephemeral.end())
        });
        let all = self.host.reserved.iter().cloned().chain(clipped);
        // The list has no protocols.
        PortSet::new(all.filter(|range| !range.is_empty()).map(as_tcp))
    }
}

/// Writes a list as the kernel reads it: `7000,8000-8010`.
fn spelled(set: &PortSet) -> String {
    let words: Vec<String> = set
        .ranges()
        .iter()
        .map(|ports| match ports.first == ports.last {
            true => ports.first.to_string(),
            false => format!("{}-{}", ports.first, ports.last),
        })
        .collect();
    words.join(",")
}

fn as_tcp(range: RangeInclusive<u16>) -> Ports {
    Ports {
        protocol: Protocol::Tcp,
        first: *range.start(),
        last: *range.end(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{config, host::Host};

    /// Follows each warning's cure, and checks that the warning disappears.
    #[test]
    fn a_list_is_as_long_as_the_kernel_accepts_at_most() {
        let ports = |count: u16| {
            let ports = (0..count).map(|n| format!("\"udp/{}\"", 40_000 + 2 * n));
            format!("protect = [{}]", ports.collect::<Vec<_>>().join(", "))
        };
        // Five digits and a comma each.
        for (count, fits) in [(682, true), (683, false)] {
            let checked = config::parse(&ports(count), "seq.toml").unwrap();
            let found = checked.warnings(&Host::default());
            let reason = &found[0].reason;
            assert_eq!(reason.contains("sysctl -w"), fits, "{count}: {reason}");
            let other = reason.contains("more than the 4095 characters");
            assert_eq!(other, !fits, "{count}: {reason}");
        }
    }

    #[test]
    fn a_cure_leaves_the_host_enough_ephemeral_ports() {
        struct Row {
            name: &'static str,
            keys: &'static str,
            reserved: &'static [(u16, u16)],
            forwards: bool,
            present: &'static [&'static str],
            absent: &'static [&'static str],
        }
        let rows = [
            Row {
                name: "a knock",
                keys: "protect = [\"udp/40000\"]",
                reserved: &[],
                forwards: false,
                present: &["`sysctl -w net.ipv4.ip_local_reserved_ports=40000`"],
                absent: &["masquerades"],
            },
            Row {
                name: "ports that are reserved already stay so",
                keys: "protect = [\"tcp/40000-40010\"]",
                reserved: &[(9000, 9000), (40_005, 40_020)],
                forwards: false,
                present: &["`sysctl -w net.ipv4.ip_local_reserved_ports=9000,40000-40020`"],
                absent: &[],
            },
            Row {
                name: "all ephemeral ports",
                keys: "protect = [\"tcp/1-6999\", \"tcp/7001-65535\"]",
                reserved: &[],
                forwards: false,
                present: &[
                    "would leave 0 of its 28232 ports for its own connections",
                    "use fewer ports",
                ],
                absent: &["sysctl"],
            },
            Row {
                name: "all but 1023 of them",
                keys: "protect = [\"tcp/32768-59976\"]",
                reserved: &[],
                forwards: false,
                present: &[
                    "would leave 1023 of its 28232 ports",
                    "`sysctl -w net.ipv4.ip_local_port_range=\"1024 32767\"`",
                ],
                absent: &["reserved_ports"],
            },
            Row {
                name: "all but 1024 of them",
                keys: "protect = [\"tcp/32768-59975\"]",
                reserved: &[],
                forwards: false,
                present: &["ip_local_reserved_ports=32768-59975`"],
                absent: &["would leave"],
            },
            Row {
                name: "most are reserved for others",
                keys: "protect = [\"udp/60000-60500\"]",
                reserved: &[(32_768, 59_500)],
                forwards: false,
                present: &[
                    "would leave 998 of its 28232 ports",
                    "port_range=\"1024 32767\"`",
                ],
                absent: &["reserved_ports"],
            },
            Row {
                name: "a router",
                keys: "protect = [\"udp/40000\"]",
                reserved: &[],
                forwards: true,
                present: &[
                    "ip_local_reserved_ports=40000`",
                    "a connection that it masquerades, such as one of a container, may use \
                     udp/40000",
                    "use ports outside 32768-60999",
                ],
                absent: &[],
            },
            Row {
                name: "a router with reserved ports",
                keys: "protect = [\"udp/40000\"]",
                reserved: &[(40_000, 40_000)],
                forwards: true,
                present: &["ip_local_reserved_ports does not prevent that"],
                absent: &["sysctl"],
            },
            Row {
                name: "a router with other ports",
                keys: "protect = [\"udp/4000\"]",
                reserved: &[],
                forwards: true,
                present: &[],
                absent: &["masquerades", "sysctl"],
            },
        ];
        for row in rows {
            let name = row.name;
            let checked =
                config::parse(row.keys, "seq.toml").unwrap_or_else(|e| panic!("{name}: {e}"));
            let reserved = row.reserved.iter().map(|&(first, last)| first..=last);
            let host = Host {
                reserved: reserved.collect(),
                forwards: row.forwards,
                ..Host::default()
            };
            let found: Vec<String> = checked
                .warnings(&host)
                .into_iter()
                .map(|w| w.reason)
                .collect();
            let found = found.join("\n");
            for words in row.present {
                assert!(found.contains(words), "{name}: no {words:?} in\n{found}");
            }
            for absent in row.absent {
                assert!(!found.contains(absent), "{name}: {absent:?} in\n{found}");
            }
        }
    }
}
