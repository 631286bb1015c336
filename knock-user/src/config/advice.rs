//! What works but is unwise, and what to do about it.

mod guessable;
mod otp;

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use knock_common::packet::Protocol;

use super::{
    Checked, Problem,
    checked::{Decoys, Door, Exempt, Knock, Moving, Ports, Scope, Settings, Verify},
    ports::PortSet,
    scans::{Harmless, Touch},
    value::spell,
};
use crate::{compile, host::Host};

/// Longer than this, a grant is not for getting in but for staying.
const LONG: Duration = Duration::from_secs(86_400);

/// Everything that is unwise about a configuration on a certain host.
pub(super) fn advise(checked: &Checked, host: &Host) -> Vec<Problem> {
    let mut advice = Advice {
        checked,
        host,
        problems: Vec::new(),
    };
    for (index, door) in checked.settings.doors.iter().enumerate() {
        if door.moving.is_none() {
            advice.sequence(index, door);
        }
        advice.grant(index, door);
        advice.served_knocks(index, door);
        advice.silence(index, door);
        advice.reply(index, door);
    }
    advice.timed();
    advice.scans();
    advice.ephemeral_ports();
    advice.trust();
    advice.lockout();
    advice.index();
    advice.nothing();
    advice.problems
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
                "all knocks are UDP, which has no flags: leave it out",
            );
        }
    }

    /// What the file alone can't show: that nothing between the knocks resets is an error there.
    fn scans(&mut self) {
        let checked = self.checked;
        let settings = &checked.settings;
        if settings.exempt != Exempt::Served {
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
                         and those don't reset: let the ports go both up and down"
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
                    "{} is long, and whoever gets the source's address later gets in too: \
                     connections outlive the grant anyway, so a minute mostly is enough",
                    spell(door.open_for)
                ),
            );
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
                    "this host listens on {knock}, and nobody will be able to connect there any \
                     more, because knocks are dropped: knock elsewhere{}",
                    pass_hint(door)
                ),
            );
        }
    }

    /// Where some ports answer, those that don't show what they are.
    fn silence(&mut self, index: usize, door: &Door) {
        if door.verify == Verify::Packet && self.settings().has_handshakes() {
            self.of_door(
                index,
                "verify",
                "its knock ports are silent, while those of doors with verify = \"handshake\" and \
                 decoys answer: whoever scans can tell them apart; take \"handshake\" for all doors",
            );
        }
    }

    fn reply(&mut self, index: usize, door: &Door) {
        let last = door.knock.last().copied();
        let Some(knock) = last.filter(|last| door.reply && last.protocol == Protocol::Tcp) else {
            return;
        };
        let cure = match door.verify {
            Verify::Packet => "let the last knock be UDP",
            Verify::Handshake => "who knocks from behind one needs to know the port",
        };
        self.of_door(
            index,
            "reply",
            format!(
                "the last knock is {knock}, and no address translation or firewall before the \
                 knocker lets a datagram in as the answer to it: {cure}"
            ),
        );
    }

    /// Ports that sockets of the host get when they ask for none: what is sent to them would be taken
    /// for knocks, or dropped.
    fn ephemeral_ports(&mut self) {
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
                    "{}, and what is sent to them would count as knocks",
                    listed(&knocks)
                );
                found.push((places.of_door(index, "knock"), "knock", what));
                reserve.extend(knocks.into_iter().map(Ports::from));
            }
            if let Some(Moving::Otp(otp)) = &door.moving {
                let timed = self.usable(&otp.ports().collect::<Vec<_>>());
                if !timed.is_empty() {
                    let what = format!(
                        "{}, and what is sent to them would count as knocks",
                        listed(&timed)
                    );
                    found.push((places.of_door(index, "otp"), "otp", what));
                    reserve.extend(timed);
                }
            }
            let opened = self.usable(door.opened());
            if !opened.is_empty() {
                let what = format!("{}, and answers to them would be dropped", listed(&opened));
                found.push((places.of_door(index, "open"), "open", what));
                reserve.extend(opened);
            }
        }
        let file_line = |key: &str| places.keys.get(key).copied();
        let protected = self.usable(&self.settings().protect);
        if !protected.is_empty() {
            let what = format!(
                "{}, and answers to them would be dropped",
                listed(&protected)
            );
            found.push((file_line("protect"), "protect", what));
            reserve.extend(protected);
        }
        if let Decoys::Listed(decoys) = &self.settings().decoys {
            let decoys = self.usable(decoys);
            if !decoys.is_empty() {
                let what = format!("{}, and answers to them would be dropped", listed(&decoys));
                found.push((file_line("decoys"), "decoys", what));
                reserve.extend(decoys);
            }
        }
        let sysctl = self.reserved_ports(&reserve);
        for (line, key, what) in found {
            let reason = format!(
                "this host's own sockets may get {what}; keep them off with \
                 `sysctl -w net.ipv4.ip_local_reserved_ports={sysctl}`, and the same in \
                 /etc/sysctl.d"
            );
            self.add(line, key, reason);
        }
    }

    /// Those of `ranges` in which the host's own connections may get a port.
    fn usable(&self, ranges: &[Ports]) -> Vec<Ports> {
        ranges
            .iter()
            .copied()
            .filter(|ports| (ports.first..=ports.last).any(|port| self.host.may_use(port)))
            .collect()
    }

    /// The list of reserved ports that the host has, and `more` in its ephemeral range.
    fn reserved_ports(&self, more: &[Ports]) -> String {
        let ephemeral = &self.host.ephemeral;
        let clipped = more.iter().map(|ports| {
            let first = ports.first.max(*ephemeral.start());
            first..=ports.last.min(*ephemeral.end())
        });
        let all = self.host.reserved.iter().cloned().chain(clipped);
        // The list knows no protocols.
        let set = PortSet::new(all.filter(|range| !range.is_empty()).map(as_tcp));
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

    fn trust(&mut self) {
        let everybody = self.settings().trust.iter().find(|prefix| prefix.bits == 0);
        if let Some(prefix) = everybody.copied() {
            self.of_file(
                "trust",
                format!("{prefix} is everybody, so nobody of that family need knock: narrow it"),
            );
        }
    }

    fn lockout(&mut self) {
        let lockout = self.settings().lockout.as_ref();
        if lockout.is_some_and(|lockout| lockout.scope == Scope::Global) {
            self.of_file(
                "lockout",
                "scope = \"global\": anybody who knocks wrong locks everybody out, you too; \
                 \"source\" locks out only the one who failed",
            );
        }
    }

    fn index(&mut self) {
        let doors = &self.settings().doors;
        let is_one_time = |door: &Door| matches!(door.moving, Some(Moving::OneTime(_)));
        if self.settings().index.is_some() && !doors.iter().any(is_one_time) {
            self.of_file(
                "index",
                "no door has a one_time file, so there is nothing to tell: leave [index] out",
            );
        }
    }

    fn nothing(&mut self) {
        let protected = compile::protected(self.settings());
        let protects = [Protocol::Tcp, Protocol::Udp].map(|p| protected.touches(Ports::all(p)));
        if protects == [false; 2] {
            self.of_file(
                "",
                "nothing is protected: no door opens a port, and protect is empty",
            );
        }
    }
}

/// What else a door can do whose knock ports have services.
fn pass_hint(door: &Door) -> &'static str {
    let has_ports = !door.opened().is_empty() || !door.closed().is_empty();
    match has_ports {
        true => "",
        false => ", or let the knocks pass with knock_pass = true",
    }
}

fn as_tcp(range: RangeInclusive<u16>) -> Ports {
    Ports {
        protocol: Protocol::Tcp,
        first: *range.start(),
        last: *range.end(),
    }
}

/// At most a few of a list of things.
fn listed<T: ToString>(things: &[T]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = things.iter().take(SHOWN).map(T::to_string).collect();
    let more = match things.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}
