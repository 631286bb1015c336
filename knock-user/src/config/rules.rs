//! Finds values that are valid alone and contradict each other.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
};

use knock_common::packet::Protocol;
use knock_sequence::{Knock, PortSet, Ports};

use super::{
    fleet_rules, limits, otp_rules, places::FileLines, reader::ReadFile, scan_rules, spa_rules,
};
use crate::{
    compile,
    model::{
        problem::ProblemReport,
        settings::{Decoys, Door, Dynamic, Exempt, Settings, Verify},
    },
};

/// Reports every contradiction.
pub(super) fn check(read: &ReadFile, report: &mut ProblemReport) {
    let ReadFile {
        settings,
        places,
        complete,
    } = read;
    let mut rules = DoorRules {
        settings,
        places,
        protected: settings.protected(),
        knocks: PortSet::new(
            knocks(settings)
                .map(Ports::from)
                .chain(otp_rules::ports(settings)),
        ),
        report,
    };
    rules.names();
    let distinct = rules.sequences();
    rules.knocks_stay_open();
    rules.ranges();
    rules.replies();
    rules.passing();
    rules.decoys();
    rules.exempt();
    rules.next_line();
    rules.metrics();
    rules.groups();
    rules.files();
    rules.scans();
    rules.users(read);
    limits::check(settings, &places.limits, rules.report);
    // A door that could not be read may be the one that opens what another closes.
    if *complete {
        rules.closing();
    }
    // The compiler would report doors with the same sequence again.
    if distinct && let Err(conflicts) = compile::check(settings) {
        for conflict in conflicts {
            report.problems.push(places.problem(conflict));
        }
    }
}

fn knocks(settings: &Settings) -> impl Iterator<Item = Knock> {
    settings.doors.iter().flat_map(|door| &door.knock).copied()
}

struct DoorRules<'a> {
    settings: &'a Settings,
    places: &'a FileLines,
    protected: PortSet,
    knocks: PortSet,
    report: &'a mut ProblemReport,
}

impl DoorRules<'_> {
    fn add(&mut self, door: usize, key: &str, reason: String) {
        let line = self.places.of_door(door, key).unwrap_or(1);
        self.report.add(line, key, reason);
    }

    fn add_to_file(&mut self, key: &str, reason: String) {
        let line = self.places.keys.get(key).copied().unwrap_or(1);
        self.report.add(line, key, reason);
    }

    /// Returns where a door is: `on line 7`.
    fn on_line(&self, door: usize) -> String {
        let line = self.places.doors.get(door).map_or(1, |door| door.line);
        self.places.sources.on_line(line)
    }

    fn names(&mut self) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (index, door) in self.settings.doors.iter().enumerate() {
            let other = *first.entry(&door.name).or_insert(index);
            if other != index {
                let place = self.on_line(other);
                self.add(
                    index,
                    "name",
                    format!(
                        "door \"{}\" {place} has the same name: rename one of them",
                        door.name
                    ),
                );
            }
        }
    }

    /// Reports doors with the same sequence for the same target; returns whether there are none.
    fn sequences(&mut self) -> bool {
        let mut distinct = true;
        // The first door for each target, by sequence.
        let mut first: HashMap<&[Knock], BTreeMap<Option<IpAddr>, usize>> = HashMap::new();
        let doors = self.settings.doors.iter().enumerate();
        for (index, door) in doors.filter(|(_, door)| !door.knock.is_empty()) {
            let others = first.entry(&door.knock).or_default();
            let other = match door.target {
                Some(target) => others.get(&Some(target)).or_else(|| others.get(&None)),
                None => others.values().min(),
            };
            if let Some(&other) = other {
                distinct = false;
                let place = self.on_line(other);
                let name = &self.settings.doors[other].name;
                self.add(
                    index,
                    "knock",
                    format!(
                        "door \"{name}\" {place} has the same sequence: change one, or \
                         let one door open the ports of both"
                    ),
                );
            }
            others.entry(door.target).or_insert(index);
        }
        distinct
    }

    fn knocks_stay_open(&mut self) {
        for (index, door) in self.settings.doors.iter().enumerate() {
            let is_protected = |knock: &&Knock| self.protected.has(knock.protocol, knock.port);
            let Some(knock) = door.knock.iter().find(is_protected) else {
                continue;
            };
            let by = self.protector((*knock).into());
            self.add(
                index,
                "knock",
                format!("{knock} is {by}, so it can't be a knock: use another port"),
            );
        }
    }

    fn ranges(&mut self) {
        let protector = |ports| self.protector(ports);
        for (index, key, reason) in otp_rules::check(self.settings, &self.protected, protector) {
            self.add(index, key, reason);
        }
    }

    fn scans(&mut self) {
        for (index, key, reason) in scan_rules::check(self.settings) {
            self.add(index, key, reason);
        }
    }

    fn users(&mut self, read: &ReadFile) {
        let protector = |ports| self.protector(ports);
        let found = spa_rules::check(read, &self.knocks, &self.protected, protector);
        self.report.problems.extend(found);
    }

    fn replies(&mut self) {
        for (index, door) in self.settings.doors.iter().enumerate() {
            if door.reply && door.first_tcp().is_none() {
                let reason = "the reply names the TCP port that was opened, and this door opens \
                              none: remove reply";
                self.add(index, "reply", reason.to_owned());
            }
        }
    }

    /// Reports `knock_pass` on doors that open or close ports, or verify knocks with a handshake.
    fn passing(&mut self) {
        for (index, door) in self.settings.doors.iter().enumerate() {
            if !door.knock_pass {
                continue;
            }
            let has_ports = !door.opened().is_empty() || !door.closed().is_empty();
            let reason = if has_ports {
                "only doors that do nothing but run a command let knocks pass, and this one \
                 opens or closes ports: remove knock_pass"
            } else if door.verify == Verify::Handshake {
                "knocks that are verified with a handshake do not reach the network stack: \
                 remove knock_pass, or verify = \"handshake\""
            } else {
                continue;
            };
            self.add(index, "knock_pass", reason.to_owned());
        }
    }

    /// Returns why a port is protected, in words.
    fn protector(&self, ports: Ports) -> String {
        let opens = |door: &&Door| door.opened().iter().any(|opened| opened.overlaps(ports));
        match self.settings.doors.iter().find(opens) {
            Some(door) => format!("opened by door \"{}\"", door.name),
            None => "listed in protect".to_owned(),
        }
    }

    fn decoys(&mut self) {
        match &self.settings.decoys {
            Decoys::Listed(listed) => {
                for &ports in listed {
                    if self.knocks.touches(ports) {
                        let reason = format!(
                            "{ports} is a knock port, and a decoy would reset the \
                             attempt: use other ports"
                        );
                        self.add_to_file("decoys", reason);
                    }
                    if self.protected.touches(ports) {
                        let reason = format!("{ports} is protected: use other ports");
                        self.add_to_file("decoys", reason);
                    }
                    if let Exempt::Listed(exempt) = &self.settings.exempt
                        && let Some(other) = exempt.iter().find(|other| other.overlaps(ports))
                    {
                        let reason = format!(
                            "{ports} is exempt ({other}): remove it from decoys \
                             or from exempt"
                        );
                        self.add_to_file("decoys", reason);
                    }
                }
            }
            Decoys::Drawn { count, range } => {
                let all = Ports {
                    protocol: Protocol::Tcp,
                    first: *range.start(),
                    last: *range.end(),
                };
                let taken = self.knocks.count(all) + self.protected.count(all);
                let free = (u32::from(all.last) - u32::from(all.first) + 1).saturating_sub(taken);
                if u32::from(*count) > free {
                    let reason = format!(
                        "{count} decoys do not fit: only {free} ports from {} to {} are unused; \
                         widen range, or lower count",
                        all.first, all.last
                    );
                    self.add_to_file("decoys", reason);
                }
            }
        }
    }

    fn exempt(&mut self) {
        let Exempt::Listed(listed) = &self.settings.exempt else {
            return;
        };
        for &ports in listed {
            if self.knocks.touches(ports) {
                let reason = format!(
                    "{ports} includes a knock port, which can't be exempt: \
                     remove it, or use another knock port"
                );
                self.add_to_file("exempt", reason);
            }
            if self.protected.touches(ports) {
                let reason = format!(
                    "{ports} includes a protected port, which is never a wrong knock anyway: \
                     remove it"
                );
                self.add_to_file("exempt", reason);
            }
        }
    }

    /// Reports a `[next_line]` port that clients could not reach without a knock.
    fn next_line(&mut self) {
        let Some(next_line) = self.settings.next_line else {
            return;
        };
        self.reachable("next_line", Ports::tcp(next_line.port()), true);
    }

    /// Reports a `[metrics]` port that a scraper on another host could not reach; a door may protect it.
    fn metrics(&mut self) {
        let Some(metrics) = self.settings.metrics else {
            return;
        };
        let port = Ports::tcp(metrics.port());
        let is_taken = |next_line: std::net::SocketAddr| {
            let [a, b] = [next_line, metrics].map(|at| at.ip());
            next_line.port() == metrics.port()
                && (a == b || a.is_unspecified() || b.is_unspecified())
        };
        if self.settings.next_line.is_some_and(is_taken) {
            let reason = format!("[next_line] listens on {port}, too: use another port");
            self.add_to_file("metrics", reason);
        } else if !metrics.ip().to_canonical().is_loopback() {
            self.reachable("metrics", port, false);
        }
    }

    fn groups(&mut self) {
        for (door, key, reason) in fleet_rules::check(self.settings) {
            self.add(door, key, reason);
        }
    }

    /// Reports a port of a server of this program to which clients can't connect.
    fn reachable(&mut self, key: &'static str, port: Ports, is_for_all: bool) {
        let is_decoy = match &self.settings.decoys {
            Decoys::Listed(listed) => listed.iter().any(|ports| ports.overlaps(port)),
            Decoys::Drawn { .. } => false,
        };
        let what = if self.knocks.touches(port) {
            "a knock port".to_owned()
        } else if is_for_all && self.protected.touches(port) {
            self.protector(port)
        } else if is_decoy {
            "a decoy".to_owned()
        } else {
            return;
        };
        let reason = format!("{port} is {what}, so clients can't connect to it: use another port");
        self.add_to_file(key, reason);
    }

    /// Reports doors that share a one-time file: one would accept lines that the other marked as
    /// used.
    fn files(&mut self) {
        let mut first: HashMap<&Path, usize> = HashMap::new();
        for (index, door) in self.settings.doors.iter().enumerate() {
            let Some(Dynamic::OneTime(one_time)) = &door.dynamic else {
                continue;
            };
            let other = *first.entry(&one_time.file).or_insert(index);
            if other != index {
                let name = &self.settings.doors[other].name;
                let place = self.on_line(other);
                let reason = format!(
                    "door \"{name}\" {place} uses the same file, and each of its \
                     sequences works once: give each door its own file"
                );
                self.add(index, "one_time", reason);
            }
        }
    }

    /// Reports `close` of ports that no door opens for the same target.
    fn closing(&mut self) {
        for (index, door) in self.settings.doors.iter().enumerate() {
            for &ports in door.closed() {
                let opens = |other: &&Door| other.opened().iter().any(|o| o.overlaps(ports));
                let mut openers = self.settings.doors.iter().filter(opens);
                let Some(opener) = openers.clone().next() else {
                    let reason = format!("no door opens {ports}, so there is nothing to close");
                    self.add(index, "close", reason);
                    continue;
                };
                if !openers.any(|other| other.target == door.target) {
                    let reason = format!(
                        "door \"{}\" opens {ports} for {}, and this one closes it for {}: give \
                         both the same target",
                        opener.name,
                        target(opener),
                        target(door)
                    );
                    self.add(index, "close", reason);
                }
            }
        }
    }
}

fn target(door: &Door) -> String {
    match door.target {
        Some(address) => format!("{address} only"),
        None => "any address".to_owned(),
    }
}
