//! A door of knockd's as a door of ours.

use std::time::Duration;

use knock_common::{layout::FlagClass, packet::flag};

use super::{
    conf::{Door, Entry, Sequence},
    firewall::{self, SOURCE},
    meaning::{Effect, Meaning},
    values::Otp,
};
use crate::{
    config::{
        Problem, WITHIN_MOST,
        checked::Ports,
        value::{spell, spell_flags},
    },
    toml_text::{list, string},
};

/// What knockd takes if no time is written.
const CMD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a port that nothing closes again: the longest that `check` does not warn of.
const LONG: Duration = Duration::from_secs(86_400);
/// For commands alone: while a grant lasts, another knock only makes it last longer.
const SHORT: Duration = Duration::from_secs(1);
/// How long a kept command may run: knockd sets no limit, and this is the longest.
const COMMAND_TIMEOUT: &str = "1h";

/// A door as it will be written.
#[derive(Debug)]
pub(super) struct Draft {
    /// The line of its section.
    pub(super) line: usize,
    pub(super) keys: Vec<Key>,
    pub(super) notes: Vec<Problem>,
    /// Why it can't be written.
    pub(super) refused: Vec<Problem>,
}

/// A line of a door.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// The line of knockd's file that it comes from.
    pub(super) source: usize,
}

impl Draft {
    /// Makes of a door what can be made of it; `interface` is where its knocks come in.
    pub(super) fn of(door: &Door, name: &str, interface: &str) -> Self {
        let mut draft = Self {
            line: door.name.line,
            keys: Vec::new(),
            notes: Vec::new(),
            refused: Vec::new(),
        };
        draft.key("name", string(name), door.name.line);
        if door.name.value != name {
            let reason = format!("{:?} is called {name:?} here", door.name.value);
            draft.note(door.name.line, "", reason);
        }
        draft.sequence(&door.sequence);
        draft.conditions(door);
        draft.commands(door, interface);
        draft
    }

    fn key(&mut self, name: &'static str, value: String, source: usize) {
        self.keys.push(Key {
            name,
            value,
            source,
        });
    }

    fn note(&mut self, line: usize, key: &str, reason: impl Into<String>) {
        self.notes.push(Problem {
            line: Some(line),
            key: key.to_owned(),
            reason: reason.into(),
        });
    }

    fn sequence(&mut self, sequence: &Sequence) {
        match sequence {
            Sequence::Fixed(Entry { line, value }) => self.key("knock", list(value), *line),
            Sequence::OneTime(Entry { line, value }) => {
                self.key("one_time", string(value), *line);
                self.note(
                    *line,
                    "",
                    "knock-user marks the lines of this file from now on: see one_time in \
                     docs/config.md for whom it must belong to",
                );
            }
            Sequence::Otp(Entry { line, value }) => self.key("otp", otp(value), *line),
        }
    }

    fn conditions(&mut self, door: &Door) {
        if let Some(Entry { line, value }) = door.seq_timeout {
            let written = Duration::from_secs(value);
            let within = written.min(WITHIN_MOST);
            if within < written {
                let reason = format!("{value} s is {} here, the longest", spell(within));
                self.note(line, "seq_timeout", reason);
            }
            self.key("within", string(&spell(within)), line);
        }
        if let Some(Entry { line, value }) = door.tcp_flags
            && !is_any_syn(value)
        {
            self.key("tcp_flags", string(&spell_flags(value)), line);
        }
        if let Some(Entry { line, value }) = &door.target {
            self.key("target", string(value), *line);
        }
    }

    fn commands(&mut self, door: &Door, interface: &str) {
        let start = self.for_both("start_command", &door.start, &door.start_6, interface);
        let stop = self.for_both("stop_command", &door.stop, &door.stop_6, interface);
        let start_line = first_line(&door.start, &door.start_6).unwrap_or(self.line);
        let stop_line = first_line(&door.stop, &door.stop_6);
        let timeout = door
            .cmd_timeout
            .as_ref()
            .map_or(CMD_TIMEOUT, |entry| Duration::from_secs(entry.value));
        let timeout_line = door.cmd_timeout.as_ref().map(|entry| entry.line);

        match (start.effect, stop_line) {
            (Effect::Open { ports, open_for }, _) => {
                self.key("open", list(&ports), start_line);
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
            (Effect::Close(ports), None) => {
                self.key("close", list(&ports), start_line);
                self.kept("on_open", "start_command", start.rest, start_line);
            }
            // It opens nothing, or closes and opens again: the commands are all there is.
            (Effect::Close(_), Some(line)) => {
                let start = whole(&door.start, &door.start_6);
                self.kept("on_open", "start_command", start, start_line);
                self.kept_stop(whole(&door.stop, &door.stop_6), timeout, timeout_line, line);
            }
            (Effect::None, Some(line)) => {
                self.kept("on_open", "start_command", start.rest, start_line);
                self.kept_stop(whole(&door.stop, &door.stop_6), timeout, timeout_line, line);
            }
            (Effect::None, None) => {
                if start.rest.is_some() {
                    self.key("open_for", string(&spell(SHORT)), start_line);
                }
                self.kept("on_open", "start_command", start.rest, start_line);
            }
        }
    }

    /// What a command does for IPv4 and IPv6 together.
    fn for_both(
        &mut self,
        key: &str,
        v4: &Option<Entry<String>>,
        v6: &Option<Entry<String>>,
        interface: &str,
    ) -> Meaning {
        let of = |entry: &Option<Entry<String>>| {
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
            let reason = "knockd does nothing for IPv6 here; this door is for both families: \
                          target = \"192.0.2.1\", with this host's address, makes it one for IPv4";
            self.note(line, &format!("{key}_6"), reason);
            return Meaning {
                rest: by_family(one.rest, None),
                ..one
            };
        }
        let reason = "it does something else than the one for IPv4, so both are kept as commands: \
                      make two doors with a target each";
        self.note(line, &format!("{key}_6"), reason);
        Meaning {
            effect: Effect::None,
            rest: whole(v4, v6),
        }
    }

    /// What of the stop command is needed where the end of a grant closes the ports.
    fn closes(&mut self, opened: &[Ports], stop: Meaning, door: &Door, line: Option<usize>) {
        let Some(line) = line else { return };
        let rest = match stop.effect {
            Effect::Close(closed) if opened.iter().all(|ports| closed.contains(ports)) => stop.rest,
            Effect::Close(_) => {
                let reason = "it closes other ports than start_command opens; here all that the \
                              door opens is closed at the end";
                self.note(line, "stop_command", reason);
                stop.rest
            }
            Effect::None => stop.rest,
            Effect::Open { .. } => whole(&door.stop, &door.stop_6),
        };
        self.kept("on_close", "stop_command", rest, line);
    }

    fn nothing_closes(&mut self, line: usize) {
        let reason = format!(
            "nothing closes the port again; here every grant ends, this one after {}: shorten it, \
             connections outlive their grant",
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

    /// Keeps a command, through the shell as knockd has it.
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
                    "{word} has a meaning in commands here: put the command into a script, and \
                     run that"
                ),
            });
        }
        if firewall::is_mentioned(&command) {
            let reason = format!(
                "kept as a command, because what it does to a firewall is not known here; if it \
                 does no more than let the source in or out again, write open = [\"tcp/22\"], with \
                 the ports that it is about, instead of {name}"
            );
            self.note(line, key, reason);
        }
        // What stands for the source is an address that was printed: digits, letters, dots and
        // colons, which mean nothing to the shell.
        let script = command.replace(SOURCE, "{source}");
        let words = ["/bin/sh", "-c", &script].map(string);
        self.key(name, format!("[{}]", words.join(", ")), line);
        if !self.keys.iter().any(|key| key.name == "command_timeout") {
            self.key("command_timeout", string(COMMAND_TIMEOUT), line);
        }
    }
}

/// Both commands as they are, for the family that each is for.
fn whole(v4: &Option<Entry<String>>, v6: &Option<Entry<String>>) -> Option<String> {
    let kept = |entry: &Entry<String>| Meaning::kept(&entry.value).rest;
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

fn first_line(v4: &Option<Entry<String>>, v6: &Option<Entry<String>>) -> Option<usize> {
    let written = [v4, v6].into_iter().flatten();
    let mut written = written.filter(|entry| !entry.value.is_empty());
    written.next().map(|entry| entry.line)
}

/// What commands of ours would replace, if it stands in one of knockd's.
fn placeholder(command: &str) -> Option<&'static str> {
    ["{source}", "{door}", "{port}", "{family}"]
        .into_iter()
        .find(|word| command.contains(word))
}

/// Flags of which every SYN that opens a connection is a case, and nothing else that clients send:
/// what is the default here.
fn is_any_syn(flags: FlagClass) -> bool {
    flags == FlagClass::SYN || (flags.mask == flag::SYN && flags.value == flag::SYN)
}

fn otp(otp: &Otp) -> String {
    let Otp {
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
        "{{ secret = {}, period = \"{period}s\", base = {base}, protocols = [{}], \
         bind_source = {bind_source} }}",
        string(secret),
        protocols.join(", ")
    )
}
