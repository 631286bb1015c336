//! Converts one of knockd's doors.

use std::time::Duration;

use knock_common::{layout::FlagClass, packet::flag};
use knock_sequence::{Ports, duration::spell};

use super::{
    conf::{KnockdDoor, KnockdSequence, Located},
    meaning::{CommandEffect, Meaning},
    rights, rule,
    rule_parts::SOURCE,
    values::KnockdOtp,
};
use crate::{
    config::SEQUENCE_TIMEOUT_MOST,
    model::{problem::Problem, value::spell_flags},
    tools::toml_text::{list, string},
};

/// knockd's default time.
const CMD_TIMEOUT: Duration = Duration::from_secs(10);
/// The grant for a port that knockd never closes: the longest without a warning of `check`.
const LONG: Duration = Duration::from_secs(86_400);
/// The grant of a door that only runs commands: during a grant, another sequence runs no command.
const SHORT: Duration = Duration::from_secs(1);
/// A month, the longest grant.
const OPEN_FOR_MOST: Duration = Duration::from_secs(30 * 86_400);
/// The time limit of a kept command: the longest, since knockd has none.
const COMMAND_TIMEOUT: &str = "1h";

/// The door to write.
#[derive(Debug)]
pub(super) struct DraftDoor {
    /// The line of its section.
    pub(super) line: usize,
    pub(super) keys: Vec<TomlKey>,
    pub(super) notes: Vec<Problem>,
    /// Its name in the result.
    pub(super) name: String,
    /// The ports that it opens.
    pub(super) opens: Vec<Ports>,
    /// The ports that it closes.
    pub(super) closes: Vec<Ports>,
    /// The problem that keeps it out of the result.
    pub(super) refused: Vec<Problem>,
}

/// A line of a door.
#[derive(Debug)]
pub(super) struct TomlKey {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// Its line in knockd's file.
    pub(super) source: usize,
}

impl DraftDoor {
    /// Converts a door; `interface` is where its knocks arrive, and `closable` are the ports that
    /// it can close, if not all.
    pub(super) fn of(
        door: &KnockdDoor,
        name: &str,
        interface: &str,
        closable: Option<&[Ports]>,
    ) -> Self {
        let mut draft = Self {
            line: door.name.line,
            keys: Vec::new(),
            notes: Vec::new(),
            name: name.to_owned(),
            opens: Vec::new(),
            closes: Vec::new(),
            refused: Vec::new(),
        };
        draft.key("name", string(name), door.name.line);
        if door.name.value != name {
            let reason = format!("{:?} is renamed to {name:?}", door.name.value);
            draft.note(door.name.line, "", reason);
        }
        draft.sequence(&door.sequence);
        draft.conditions(door);
        draft.commands(door, interface, closable);
        draft.cooldown(door);
        draft.passing(door);
        draft
    }

    /// Returns whether it has a key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Returns the TOML value of a key.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let key = self.keys.iter().find(|key| key.name == name)?;
        Some(&key.value)
    }

    fn key(&mut self, name: &'static str, value: String, source: usize) {
        self.keys.push(TomlKey {
            name,
            value,
            source,
        });
    }

    pub(super) fn note(&mut self, line: usize, key: &str, reason: impl Into<String>) {
        self.notes.push(Problem {
            line: Some(line),
            key: key.to_owned(),
            reason: reason.into(),
        });
    }

    fn sequence(&mut self, sequence: &KnockdSequence) {
        match sequence {
            KnockdSequence::Fixed(Located { line, value }) => self.key("knock", list(value), *line),
            KnockdSequence::OneTime(Located { line, value }) => {
                self.key("one_time", string(value), *line);
                self.note(
                    *line,
                    "",
                    "knock-user marks used lines in this file from now on; docs/config.md says \
                     under one_time who must own it",
                );
            }
            KnockdSequence::Otp(Located { line, value }) => self.key("otp", otp(value), *line),
        }
    }

    fn conditions(&mut self, door: &KnockdDoor) {
        if let Some(Located { line, value }) = door.seq_timeout {
            let written = Duration::from_secs(value);
            let sequence_timeout = written.min(SEQUENCE_TIMEOUT_MOST);
            if sequence_timeout < written {
                let reason = format!(
                    "{value} s is shortened to {}, the longest",
                    spell(sequence_timeout)
                );
                self.note(line, "seq_timeout", reason);
            }
            self.key("sequence_timeout", string(&spell(sequence_timeout)), line);
        }
        if let Some(Located { line, value }) = door.tcp_flags
            && !is_any_syn(value)
        {
            self.key("tcp_flags", string(&spell_flags(value)), line);
        }
        if let Some(Located { line, value }) = &door.target {
            self.key("target", string(value), *line);
        }
    }

    fn commands(&mut self, door: &KnockdDoor, interface: &str, closable: Option<&[Ports]>) {
        let start = self.for_both("start_command", &door.start, &door.start_6, interface);
        let stop = self.for_both("stop_command", &door.stop, &door.stop_6, interface);
        let start_line = first_line(&door.start, &door.start_6).unwrap_or(self.line);
        let stop_line = first_line(&door.stop, &door.stop_6);
        let timeout = door
            .cmd_timeout
            .as_ref()
            .map_or(CMD_TIMEOUT, |entry| Duration::from_secs(entry.value));
        let timeout = self.within_limits(timeout, door);
        let timeout_line = door.cmd_timeout.as_ref().map(|entry| entry.line);

        match (start.effect, stop_line) {
            (CommandEffect::Open { ports, open_for }, _) => {
                self.key("open", list(&ports), start_line);
                self.opens.clone_from(&ports);
                let (open_for, line) = match (open_for, stop_line) {
                    (Some(time), _) => (time, start_line),
                    (None, Some(line)) => (timeout, timeout_line.unwrap_or(line)),
                    (None, None) => {
                        self.nothing_closes(start_line);
                        (LONG, start_line)
                    }
                };
                self.key("open_for", string(&spell(open_for)), line);
                self.kept("on_open", "start_command", start.rest, start_line);
                self.closes(&ports, stop, door, stop_line);
            }
            (CommandEffect::Close(ports), None) => {
                self.closing(&ports, start.rest, door, closable, start_line);
            }
            // It opens nothing, or closes and opens again: only the commands remain.
            (CommandEffect::Close(_), Some(line)) => {
                let start = whole(&door.start, &door.start_6);
                self.kept("on_open", "start_command", start, start_line);
                self.kept_stop(whole(&door.stop, &door.stop_6), timeout, timeout_line, line);
            }
            (CommandEffect::None, Some(line)) => {
                self.kept("on_open", "start_command", start.rest, start_line);
                self.kept_stop(whole(&door.stop, &door.stop_6), timeout, timeout_line, line);
            }
            (CommandEffect::None, None) => self.only_command(start.rest, start_line),
        }
        // A door needs an effect when its sequence is complete.
        if self.has("on_close") && !self.has("open") && !self.has("on_open") {
            let line = stop_line.unwrap_or(self.line);
            self.key("on_open", list(&["/bin/true"]), line);
        }
    }

    /// Returns the length of a grant for knockd's waiting time, with a note if the length differs.
    fn within_limits(&mut self, timeout: Duration, door: &KnockdDoor) -> Duration {
        let open_for = timeout.clamp(SHORT, OPEN_FOR_MOST);
        if open_for != timeout
            && let Some(Located { line, .. }) = door.cmd_timeout
        {
            let reason = format!(
                "{} s is changed to {}: a grant lasts from {} to {}",
                timeout.as_secs(),
                spell(open_for),
                spell(SHORT),
                spell(OPEN_FOR_MOST)
            );
            self.note(line, "cmd_timeout", reason);
        }
        open_for
    }

    fn only_command(&mut self, command: Option<String>, line: usize) {
        if command.is_some() {
            self.key("open_for", string(&spell(SHORT)), line);
        }
        self.kept("on_open", "start_command", command, line);
    }

    /// Converts a door that closes ports, as far as some door opens them.
    fn closing(
        &mut self,
        ports: &[Ports],
        rest: Option<String>,
        door: &KnockdDoor,
        closable: Option<&[Ports]>,
        line: usize,
    ) {
        let can_close = |port: &&Ports| closable.is_none_or(|closable| closable.contains(port));
        self.closes = ports.iter().filter(can_close).copied().collect();
        if self.closes.len() == ports.len() {
            self.key("close", list(ports), line);
            return self.kept("on_open", "start_command", rest, line);
        }
        let others: Vec<Ports> = ports
            .iter()
            .filter(|port| !can_close(port))
            .copied()
            .collect();
        let reason = format!(
            "no door opens {}, so there is nothing to close: kept as a command",
            shown(&others)
        );
        self.note(line, "start_command", reason);
        let command = whole(&door.start, &door.start_6);
        if self.closes.is_empty() {
            return self.only_command(command, line);
        }
        self.key("close", list(&self.closes), line);
        self.kept("on_open", "start_command", command, line);
    }

    /// Carries over `seq_cooldown`, as far as there is an equivalent.
    fn cooldown(&mut self, door: &KnockdDoor) {
        let Some(Located {
            line,
            value: seconds @ 1..,
        }) = door.seq_cooldown
        else {
            return;
        };
        let runs_alone = !self.has("open") && !self.has("close") && !self.has("on_close");
        let reason = if runs_alone
            && let Some(key) = self.keys.iter_mut().find(|key| key.name == "open_for")
        {
            let cooldown = Duration::from_secs(seconds).clamp(SHORT, OPEN_FOR_MOST);
            key.value = string(&spell(cooldown));
            key.source = line;
            "carried over as open_for: until it ends, another sequence runs no command and \
             restarts the time"
        } else if self.has("close") {
            "not carried over: each completed sequence closes the ports"
        } else {
            "not carried over: during open_for, another sequence runs no command and restarts \
             the time"
        };
        self.note(line, "seq_cooldown", reason);
    }

    /// Lets knocks pass if a door only runs commands, as knockd does: they may be for a service.
    fn passing(&mut self, door: &KnockdDoor) {
        let line = match &door.sequence {
            KnockdSequence::Fixed(entry) => entry.line,
            KnockdSequence::Otp(entry) => entry.line,
            // These ports change, and may become knocks of another door.
            KnockdSequence::OneTime(_) => return,
        };
        if self.has("on_open") && !self.has("open") && !self.has("close") {
            self.key("knock_pass", true.to_string(), line);
        }
    }

    /// Returns the common effect of the commands for IPv4 and IPv6.
    fn for_both(
        &mut self,
        key: &str,
        v4: &Option<Located<String>>,
        v6: &Option<Located<String>>,
        interface: &str,
    ) -> Meaning {
        let of = |entry: &Option<Located<String>>| {
            entry.as_ref().map_or_else(Meaning::default, |entry| {
                Meaning::of(&entry.value, interface)
            })
        };
        let one = of(v4);
        let Some(line) = v6.as_ref().map(|entry| entry.line) else {
            return one;
        };
        let other = of(v6);
        if one.effect == other.effect {
            return Meaning {
                effect: one.effect,
                rest: by_family(one.rest, other.rest),
            };
        }
        if other == Meaning::default() {
            let reason = "knockd does nothing for IPv6 here, and this door serves both families: \
                          to limit it to IPv4, set target to an IPv4 address of this host, as in \
                          target = \"192.0.2.1\"";
            self.note(line, &format!("{key}_6"), reason);
            return Meaning {
                rest: by_family(one.rest, None),
                ..one
            };
        }
        let reason = "it differs from the command for IPv4, so both are kept as commands: define \
                      two doors, each with a target";
        self.note(line, &format!("{key}_6"), reason);
        Meaning {
            effect: CommandEffect::None,
            rest: whole(v4, v6),
        }
    }

    /// Carries over the rest of the stop command, since the end of a grant closes the ports.
    fn closes(&mut self, opened: &[Ports], stop: Meaning, door: &KnockdDoor, line: Option<usize>) {
        let Some(line) = line else { return };
        let rest = match stop.effect {
            CommandEffect::Close(closed) if opened.iter().all(|ports| closed.contains(ports)) => {
                stop.rest
            }
            CommandEffect::Close(_) => {
                let reason = "it closes other ports than start_command opens; here the end of a \
                              grant closes all ports of the door";
                self.note(line, "stop_command", reason);
                stop.rest
            }
            CommandEffect::None => stop.rest,
            CommandEffect::Open { .. } => whole(&door.stop, &door.stop_6),
        };
        self.kept("on_close", "stop_command", rest, line);
    }

    fn nothing_closes(&mut self, line: usize) {
        let reason = format!(
            "knockd never closes the port again; here every grant expires, this one after {}: \
             shorten it, since connections outlive their grant",
            spell(LONG)
        );
        self.note(line, "start_command", reason);
    }

    fn kept_stop(
        &mut self,
        command: Option<String>,
        timeout: Duration,
        timeout_line: Option<usize>,
        line: usize,
    ) {
        let open_for = string(&spell(timeout));
        self.key("open_for", open_for, timeout_line.unwrap_or(line));
        self.kept("on_close", "stop_command", command, line);
    }

    /// Keeps a command, run by the shell as knockd does.
    fn kept(
        &mut self,
        name: &'static str,
        key: &'static str,
        command: Option<String>,
        line: usize,
    ) {
        let Some(command) = command else { return };
        if let Some(word) = placeholder(&command) {
            self.refused.push(Problem {
                line: Some(line),
                key: key.to_owned(),
                reason: format!(
                    "{word} is a placeholder in commands of knock-user: move the command to a \
                     script, and run that"
                ),
            });
        }
        for (program, capability) in rights::missing(&command) {
            let reason = format!(
                "{program} needs {capability} and will fail, because commands of knock-user have \
                 at most CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and none if knock-user runs as \
                 a service; docs/operating.md shows how another service can do it"
            );
            self.note(line, key, reason);
        }
        if rule::is_mentioned(&command) {
            let reason = format!(
                "kept as a command, because it is not a firewall rule that knock-user knows; if \
                 it only opens or closes ports for the source, write open = [\"tcp/22\"], with \
                 those ports, instead of {name}"
            );
            self.note(line, key, reason);
        }
        // The source is printed as an address: digits, letters, dots and colons, which the shell
        // does not interpret.
        let script = command.replace(SOURCE, "{source}");
        let words = ["/bin/sh", "-c", &script].map(string);
        self.key(name, format!("[{}]", words.join(", ")), line);
        if !self.keys.iter().any(|key| key.name == "command_timeout") {
            self.key("command_timeout", string(COMMAND_TIMEOUT), line);
        }
    }
}

/// Writes ports in a sentence.
pub(super) fn shown<T: ToString>(ports: &[T]) -> String {
    const SHOWN: usize = 4;
    let words: Vec<String> = ports.iter().take(SHOWN).map(T::to_string).collect();
    let more = match ports.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    words.join(", ") + &more
}

/// Joins both commands in a script that selects by family.
fn whole(v4: &Option<Located<String>>, v6: &Option<Located<String>>) -> Option<String> {
    let kept = |entry: &Located<String>| Meaning::kept(&entry.value).rest;
    let one = v4.as_ref().and_then(kept);
    match v6 {
        Some(other) => by_family(one, kept(other)),
        None => one,
    }
}

fn by_family(v4: Option<String>, v6: Option<String>) -> Option<String> {
    if v4 == v6 {
        return v4;
    }
    let or_nothing = |command: Option<String>| command.unwrap_or_else(|| ":".to_owned());
    // Lines and not semicolons: a command may end with & or with a comment.
    Some(format!(
        "if [ \"$KNOCK_FAMILY\" = ipv6 ]; then\n{}\nelse\n{}\nfi",
        or_nothing(v6),
        or_nothing(v4)
    ))
}

fn first_line(v4: &Option<Located<String>>, v6: &Option<Located<String>>) -> Option<usize> {
    let written = [v4, v6].into_iter().flatten();
    let mut written = written.filter(|entry| !entry.value.is_empty());
    written.next().map(|entry| entry.line)
}

/// Returns a placeholder of ours in one of knockd's commands.
fn placeholder(command: &str) -> Option<&'static str> {
    ["{source}", "{door}", "{port}", "{family}"]
        .into_iter()
        .find(|word| command.contains(word))
}

/// Returns whether flags match exactly the SYNs that open connections, which is the default here.
fn is_any_syn(flags: FlagClass) -> bool {
    flags == FlagClass::SYN || (flags.mask == flag::SYN && flags.value == flag::SYN)
}

fn otp(otp: &KnockdOtp) -> String {
    let KnockdOtp {
        secret,
        period,
        base,
        bind_source,
        protocols,
    } = otp;
    let protocols: Vec<String> = protocols
        .iter()
        .map(|protocol| string(protocol.name()))
        .collect();
    format!(
        "{{ secret = {}, period = \"{period}s\", port_base = {base}, protocols = [{}], \
         bind_source = {bind_source} }}",
        string(secret),
        protocols.join(", ")
    )
}
