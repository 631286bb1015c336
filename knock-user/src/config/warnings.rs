//! Warns of settings that are valid but unwise, and names the cure.

mod ephemeral;
mod files;
mod fleet;
mod guessable;
mod limits;
mod otp;
mod spa;
mod surroundings;

use std::{collections::BTreeSet, time::Duration};

use knock_common::packet::Protocol;
use knock_sequence::{Knock, Ports, duration::spell};

use super::{
    checked::Checked,
    grant_prefix,
    scans::{Harmless, Touch},
};
use crate::{
    host::Host,
    model::{
        problem::Problem,
        settings::{Door, Dynamic, Exempt, Scope, Settings, Verify},
    },
};

/// Longer grants draw a warning: a client needs one only to connect.
const LONG: Duration = Duration::from_secs(86_400);

/// Returns all warnings about a configuration on a host.
fn advise(checked: &Checked, host: &Host) -> Vec<Problem> {
    let mut advice = Advice {
        checked,
        host,
        problems: Vec::new(),
    };
    for (index, door) in checked.settings.doors.iter().enumerate() {
        if !door.knock.is_empty() {
            advice.sequence(index, door);
        }
        advice.grant(index, door);
        advice.grant_prefix(index, door);
        advice.served_knocks(index, door);
        advice.silence(index, door);
        advice.reply(index, door);
    }
    advice.timed();
    advice.users();
    advice.scans();
    advice.ephemeral_ports();
    advice.trust();
    advice.lockout();
    advice.limits();
    advice.fleet();
    advice.next_line();
    advice.nothing();
    advice.unmatched();
    advice.files();
    advice.problems
}

impl Checked {
    /// Returns the warnings about it on this host, in the order of the lines.
    pub fn warnings(&self, host: &Host) -> Vec<Problem> {
        let mut warnings = advise(self, host);
        warnings.sort();
        warnings.dedup();
        warnings
    }
}

struct Advice<'a> {
    checked: &'a Checked,
    host: &'a Host,
    problems: Vec<Problem>,
}

impl Advice<'_> {
    const fn settings(&self) -> &Settings {
        &self.checked.settings
    }

    fn add(&mut self, line: Option<usize>, key: &str, reason: String) {
        self.problems.push(Problem {
            line,
            key: key.to_owned(),
            reason,
        });
    }

    fn of_door(&mut self, door: usize, key: &str, reason: impl Into<String>) {
        let line = self.checked.places.of_door(door, key);
        self.add(line, key, reason.into());
    }

    fn of_file(&mut self, key: &str, reason: impl Into<String>) {
        let line = self.checked.places.keys.get(key).copied();
        self.add(line, key, reason.into());
    }

    fn sequence(&mut self, index: usize, door: &Door) {
        let knocks = &door.knock;
        if !door.knock_pass {
            for reason in guessable::reasons(door) {
                self.of_door(index, "knock", reason);
            }
        }
        let udp = knocks.iter().all(|knock| knock.protocol == Protocol::Udp);
        let line = self.checked.places.doors.get(index);
        if udp && line.is_some_and(|places| places.keys.contains_key("tcp_flags")) {
            self.of_door(
                index,
                "tcp_flags",
                "all knocks are UDP, which has no flags: remove tcp_flags",
            );
        }
    }

    /// Warns of sequences that a scan would complete because of the ports on which this host
    /// listens.
    fn scans(&mut self) {
        let checked = self.checked;
        let settings = &checked.settings;
        if settings.exempt != Exempt::Listening {
            return;
        }
        let served: Vec<Ports> = self.host.served.iter().copied().map(Ports::from).collect();
        let mut harmless = Harmless::new(settings, &served);
        for (index, door) in settings.doors.iter().enumerate() {
            if door.knock.len() > 1
                && let Some(direction) = harmless.walk(&door.knock, Touch::of(door))
            {
                self.of_door(
                    index,
                    "knock",
                    format!(
                        "{direction}, because this host listens on all ports between the knocks, \
                         and those do not reset the attempt: mix ascending and descending ports"
                    ),
                );
            }
        }
    }

    fn grant(&mut self, index: usize, door: &Door) {
        if door.open_for > LONG {
            self.of_door(
                index,
                "open_for",
                format!(
                    "{} is long, and a later holder of the source's address gets in too: \
                     connections outlive their grant, so a minute is usually enough",
                    spell(door.open_for)
                ),
            );
        }
    }

    fn grant_prefix(&mut self, index: usize, door: &Door) {
        for reason in grant_prefix::warnings(door) {
            self.of_door(index, "grant_prefix", reason);
        }
    }

    fn served_knocks(&mut self, index: usize, door: &Door) {
        if door.knock_pass {
            return;
        }
        let served: BTreeSet<Knock> = door
            .knock
            .iter()
            .copied()
            .filter(|knock| self.host.served.contains(knock))
            .collect();
        for knock in served {
            self.of_door(
                index,
                "knock",
                format!(
                    "this host listens on {knock}, and clients can no longer connect to it, \
                     because knocks are dropped: use another port{}",
                    pass_hint(door)
                ),
            );
        }
    }

    /// Warns of silent knock ports beside ones that reply.
    fn silence(&mut self, index: usize, door: &Door) {
        let is_silent = door.has_sequence() && door.verify == Verify::Packet;
        if is_silent && self.settings().has_handshakes() {
            self.of_door(
                index,
                "verify",
                "its knock ports do not reply, while decoys and the knock ports of doors with \
                 verify = \"handshake\" do, so a scan distinguishes them: use \"handshake\" for \
                 all doors",
            );
        }
    }

    fn reply(&mut self, index: usize, door: &Door) {
        let last = door.knock.last().copied();
        let Some(knock) = last.filter(|last| door.reply && last.protocol == Protocol::Tcp) else {
            return;
        };
        let cure = match door.verify {
            Verify::Packet => "make the last knock UDP",
            Verify::Handshake => "such clients need to know the port",
        };
        self.of_door(
            index,
            "reply",
            format!(
                "the last knock is {knock}, so a NAT or firewall in front of the client drops \
                 the reply, which is a datagram: {cure}"
            ),
        );
    }

    fn trust(&mut self) {
        let everybody = self.settings().trust.iter().find(|prefix| prefix.bits == 0);
        if let Some(prefix) = everybody.copied() {
            self.of_file(
                "trust",
                format!(
                    "{prefix} covers every address of its family, so nobody has to knock: \
                     narrow the prefix"
                ),
            );
        }
    }

    fn lockout(&mut self) {
        let lockout = self.settings().lockout.as_ref();
        if lockout.is_some_and(|lockout| lockout.scope == Scope::Global) {
            self.of_file(
                "lockout",
                "with scope = \"global\" anyone can lock everyone out by sending wrong knocks: \
                 use \"source\", which locks out only the source that failed",
            );
        }
    }

    fn next_line(&mut self) {
        let doors = &self.settings().doors;
        let is_one_time = |door: &Door| matches!(door.dynamic, Some(Dynamic::OneTime(_)));
        if self.settings().next_line.is_some() && !doors.iter().any(is_one_time) {
            self.of_file(
                "next_line",
                "no door has a one_time file, so there is no next line to report: remove \
                 [next_line]",
            );
        }
    }

    fn nothing(&mut self) {
        let protected = self.settings().protected();
        let protects = [Protocol::Tcp, Protocol::Udp].map(|p| protected.touches(Ports::all(p)));
        if protects == [false; 2] {
            self.of_file(
                "",
                "nothing is protected: no door opens a port, and protect is empty",
            );
        }
    }
}

/// Returns another cure for a knock port on which the host listens.
fn pass_hint(door: &Door) -> &'static str {
    let has_ports = !door.opened().is_empty() || !door.closed().is_empty();
    match has_ports {
        true => "",
        false => ", or let the knocks pass with knock_pass = true",
    }
}

/// Writes at most four items of a list.
fn listed<T: ToString>(things: &[T]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = things.iter().take(SHOWN).map(T::to_string).collect();
    let more = match things.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}
