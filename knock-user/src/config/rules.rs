//! What cannot work: values that are right each for itself, and wrong together.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
};

use knock_common::{layout::FlagClass, packet::Protocol};
use knock_sequence::{Knock, PortSet, Ports};

use super::{
    otp_rules,
    reader::{Places, Read},
    scans::{Direction, Harmless, Touch, opens},
};
use crate::{
    compile,
    model::{
        problem::Report,
        settings::{Decoys, Door, Dynamic, Exempt, Settings, Verify},
        value::spell_flags,
    },
};

/// Reports everything that cannot work.
pub(super) fn check(read: &Read, report: &mut Report) {
    let Read {
        settings,
        places,
        complete,
    } = read;
    let mut rules = Rules {
        settings,
        places,
        protected: compile::protected(settings),
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
    rules.files();
    rules.scans();
    // A door that could not be read may be the one that opens what another closes.
    if *complete {
        rules.closing();
    }
    // Doors with the same sequence would be reported once more for each way that they meet.
    if distinct && let Err(conflicts) = compile::check(settings) {
        for conflict in conflicts {
            report.problems.push(places.problem(conflict));
        }
    }
}

fn knocks(settings: &Settings) -> impl Iterator<Item = Knock> {
    settings.doors.iter().flat_map(|door| &door.knock).copied()
}

struct Rules<'a> {
    settings: &'a Settings,
    places: &'a Places,
    protected: PortSet,
    knocks: PortSet,
    report: &'a mut Report,
}

impl Rules<'_> {
    fn add(&mut self, door: usize, key: &str, reason: String) {
        let line = self.places.of_door(door, key).unwrap_or(1);
        self.report.add(line, key, reason);
    }

    fn add_to_file(&mut self, key: &str, reason: String) {
        let line = self.places.keys.get(key).copied().unwrap_or(1);
        self.report.add(line, key, reason);
    }

    fn line(&self, door: usize) -> usize {
        self.places.doors.get(door).map_or(1, |door| door.line)
    }

    fn names(&mut self) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (index, door) in self.settings.doors.iter().enumerate() {
            let other = *first.entry(&door.name).or_insert(index);
            if other != index {
                let line = self.line(other);
                self.add(
                    index,
                    "name",
                    format!("door \"{}\" of line {line} has this name too", door.name),
                );
            }
        }
    }

    /// Two doors that can't be told apart; tells whether there are none.
    fn sequences(&mut self) -> bool {
        let mut distinct = true;
        // For each sequence: the first door with it for each target.
        let mut first: HashMap<&[Knock], BTreeMap<Option<IpAddr>, usize>> = HashMap::new();
        let doors = self.settings.doors.iter().enumerate();
        for (index, door) in doors.filter(|(_, door)| door.dynamic.is_none()) {
            let others = first.entry(&door.knock).or_default();
            let other = match door.target {
                Some(target) => others.get(&Some(target)).or_else(|| others.get(&None)),
                None => others.values().min(),
            };
            if let Some(&other) = other {
                distinct = false;
                let line = self.line(other);
                let name = &self.settings.doors[other].name;
                self.add(
                    index,
                    "knock",
                    format!(
                        "door \"{name}\" of line {line} has the same sequence: change one, or \
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
                format!("{knock} is {by}, so it can't be a knock: knock elsewhere"),
            );
        }
    }

    fn ranges(&mut self) {
        let protector = |ports| self.protector(ports);
        for (index, key, reason) in otp_rules::check(self.settings, &self.protected, protector) {
            self.add(index, key, reason);
        }
    }

    fn replies(&mut self) {
        for (index, door) in self.settings.doors.iter().enumerate() {
            if door.reply && door.first_tcp().is_none() {
                let reason = "true tells the client the TCP port that was opened, and this door \
                              opens none: leave it out";
                self.add(index, "reply", reason.to_owned());
            }
        }
    }

    /// Knocks that pass are for services that run on knock ports, and for those alone.
    fn passing(&mut self) {
        for (index, door) in self.settings.doors.iter().enumerate() {
            if !door.knock_pass {
                continue;
            }
            let has_ports = !door.opened().is_empty() || !door.closed().is_empty();
            let reason = if has_ports {
                "true is for doors that only run commands, and this one opens or closes ports: \
                 leave it out"
            } else if door.verify == Verify::Handshake {
                "true hands the knocks to the network stack, and with verify = \"handshake\" they \
                 are answered before it: leave one of them out"
            } else {
                continue;
            };
            self.add(index, "knock_pass", reason.to_owned());
        }
    }

    /// Why a port is protected, in words.
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
                        let reason =
                            format!("{ports} is a knock, and decoys reset: take other ports");
                        self.add_to_file("decoys", reason);
                    }
                    if self.protected.touches(ports) {
                        let reason = format!("{ports} is protected: take other ports");
                        self.add_to_file("decoys", reason);
                    }
                    if let Exempt::Listed(exempt) = &self.settings.exempt
                        && let Some(other) = exempt.iter().find(|other| other.overlaps(ports))
                    {
                        let reason = format!("{ports} is exempt ({other}): take it out of one");
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
                        "{count} decoys are wanted, but only {free} ports from {} to {} are \
                         nothing else: widen range or lower count",
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
                let reason = format!("{ports} has a knock in it, which can't be exempt");
                self.add_to_file("exempt", reason);
            }
            if self.protected.touches(ports) {
                let reason = format!(
                    "{ports} has a protected port in it, and those are never wrong knocks: \
                     take it out"
                );
                self.add_to_file("exempt", reason);
            }
        }
    }

    /// Clients have to reach it without a knock.
    fn next_line(&mut self) {
        let Some(next_line) = self.settings.next_line else {
            return;
        };
        let port = Ports::tcp(next_line.port());
        let is_decoy = match &self.settings.decoys {
            Decoys::Listed(listed) => listed.iter().any(|ports| ports.overlaps(port)),
            Decoys::Drawn { .. } => false,
        };
        let what = if self.knocks.touches(port) {
            "a knock".to_owned()
        } else if self.protected.touches(port) {
            self.protector(port)
        } else if is_decoy {
            "a decoy".to_owned()
        } else {
            return;
        };
        let reason = format!("{port} is {what}, so nobody can ask there: listen elsewhere");
        self.add_to_file("next_line", reason);
    }

    /// What one door marks as used, the other would use.
    fn files(&mut self) {
        let mut first: HashMap<&Path, usize> = HashMap::new();
        for (index, door) in self.settings.doors.iter().enumerate() {
            let Some(Dynamic::OneTime(one_time)) = &door.dynamic else {
                continue;
            };
            let other = *first.entry(&one_time.file).or_insert(index);
            if other != index {
                let name = &self.settings.doors[other].name;
                let line = self.line(other);
                let reason = format!(
                    "door \"{name}\" of line {line} has this file: a sequence works once, so give \
                     each door its own"
                );
                self.add(index, "one_time", reason);
            }
        }
    }

    /// A door that closes ends the grants of doors for the same target.
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

    /// Sequences that somebody who tries all ports in order would knock.
    fn scans(&mut self) {
        const MIX: &str = "let the ports go both up and down";
        let exempt: &[Ports] = match &self.settings.exempt {
            Exempt::Listed(listed) => listed,
            // Which ports are served is not the file's to say.
            Exempt::Listening => &[],
        };
        let mut harmless = Harmless::new(self.settings, exempt);
        for (index, door) in self.settings.doors.iter().enumerate() {
            // That a single knock opens to any scan is said elsewhere.
            if door.knock.len() < 2 {
                continue;
            }
            if !self.settings.strict
                && let Some(direction) = Direction::of(&door.knock)
            {
                self.add(
                    index,
                    "knock",
                    format!("{direction}: {MIX}, or leave strict = false out"),
                );
                continue;
            }
            let Some(direction) = harmless.walk(&door.knock, Touch::of(door)) else {
                continue;
            };
            // What is left with the flags that the message would ask for is the sequence's fault.
            let touch = Touch {
                flags: FlagClass::SYN,
                ..Touch::of(door)
            };
            if opens(door.tcp_flags) || harmless.walk(&door.knock, touch).is_some() {
                self.add(
                    index,
                    "knock",
                    format!(
                        "{direction}, because no port between the knocks resets: {MIX}, or take \
                         knocks that are further apart"
                    ),
                );
            } else {
                self.add(
                    index,
                    "tcp_flags",
                    format!(
                        "{direction}: \"{}\" lets TCP packets knock that don't ask for a \
                         connection, and those reset nothing on the ports between; write \
                         tcp_flags = \"{}\", the default, or {MIX}",
                        spell_flags(door.tcp_flags),
                        spell_flags(FlagClass::SYN)
                    ),
                );
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
