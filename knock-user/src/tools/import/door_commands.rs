//! Converts the commands of one of knockd's doors.

use std::time::Duration;

use knock_sequence::{Ports, duration::spell};

use super::{
    conf::{KnockdDoor, Located},
    draft::{DraftDoor, shown},
    meaning::{CommandEffect, LineMeaning},
    rights, rule,
    rule_parts::SOURCE,
};
use crate::{
    model::problem::Problem,
    tools::toml_text::{list, string},
};

/// knockd's default time.
const CMD_TIMEOUT: Duration = Duration::from_secs(10);
/// The grant for a port that knockd never closes: the longest without a warning of `check`.
const LONG: Duration = Duration::from_secs(86_400);
/// The grant of a door that only runs commands: during a grant, another sequence runs no command.
pub(super) const SHORT: Duration = Duration::from_secs(1);
/// A month, the longest grant.
pub(super) const OPEN_FOR_MOST: Duration = Duration::from_secs(30 * 86_400);
/// The time limit of a kept command: the longest, since knockd has none.
const COMMAND_TIMEOUT: &str = "1h";

impl DraftDoor {
    pub(super) fn commands(
        &mut self,
        door: &KnockdDoor,
        interface: &str,
        closable: Option<&[Ports]>,
    ) {
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

    /// Returns the common effect of the commands for IPv4 and IPv6.
    fn for_both(
        &mut self,
        key: &str,
        v4: &Option<Located<String>>,
        v6: &Option<Located<String>>,
        interface: &str,
    ) -> LineMeaning {
        let of = |entry: &Option<Located<String>>| {
            entry.as_ref().map_or_else(LineMeaning::default, |entry| {
                LineMeaning::of(&entry.value, interface)
            })
        };
        let one = of(v4);
        let Some(line) = v6.as_ref().map(|entry| entry.line) else {
            return one;
        };
        let other = of(v6);
        if one.effect == other.effect {
            return LineMeaning {
                effect: one.effect,
                rest: by_family(one.rest, other.rest),
            };
        }
        if other == LineMeaning::default() {
            let reason = "knockd does nothing for IPv6 here, and this door serves both families: \
                          to limit it to IPv4, set target to an IPv4 address of this host, as in \
                          target = \"192.0.2.1\"";
            self.note(line, &format!("{key}_6"), reason);
            return LineMeaning {
                rest: by_family(one.rest, None),
                ..one
            };
        }
        let reason = "it differs from the command for IPv4, so both are kept as commands: define \
                      two doors, each with a target";
        self.note(line, &format!("{key}_6"), reason);
        LineMeaning {
            effect: CommandEffect::None,
            rest: whole(v4, v6),
        }
    }

    /// Carries over the rest of the stop command, since the end of a grant closes the ports.
    fn closes(
        &mut self,
        opened: &[Ports],
        stop: LineMeaning,
        door: &KnockdDoor,
        line: Option<usize>,
    ) {
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

/// Joins both commands in a script that selects by family.
fn whole(v4: &Option<Located<String>>, v6: &Option<Located<String>>) -> Option<String> {
    let kept = |entry: &Located<String>| LineMeaning::kept(&entry.value).rest;
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
