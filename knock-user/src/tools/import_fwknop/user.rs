//! Converts a stanza of access.conf to a user and its doors.

use std::{collections::BTreeSet, path::PathBuf};

use jiff::{Timestamp, civil::Date};
use knock_common::spa::layout::FWKNOP_SOURCES_MAX;
use knock_sequence::Ports;

use super::{
    stanza::{AccessLine, AccessStanza, EXPIRE, HMAC_KEY, KEY},
    values::{prefix, without, words},
};
use crate::{
    config::fwknop,
    model::{
        problem::Problem,
        settings::Prefix,
        spa::{Fwknop, FwknopKeys},
    },
    tools::toml_text::{list, string},
};

/// Keys that are read where they are needed.
const USED: [&str; 21] = [
    "SOURCE",
    "DESTINATION",
    "OPEN_PORTS",
    "RESTRICT_PORTS",
    "KEY",
    "KEY_BASE64",
    "HMAC_KEY",
    "HMAC_KEY_BASE64",
    "HMAC_DIGEST_TYPE",
    "ENCRYPTION_MODE",
    "FW_ACCESS_TIMEOUT",
    "MAX_FW_TIMEOUT",
    "REQUIRE_USERNAME",
    "REQUIRE_SOURCE_ADDRESS",
    "REQUIRE_SOURCE",
    "ACCESS_EXPIRE",
    "ACCESS_EXPIRE_EPOCH",
    "CMD_CYCLE_OPEN",
    "CMD_CYCLE_CLOSE",
    "CMD_CYCLE_TIMER",
    "ENABLE_CMD_EXEC",
];

const NO_GPG: &str = "packets that are encrypted with GnuPG are not supported: make keys with `fwknop \
                      --key-gen`";
const NOT_GPG: &str = "not used: only packets with a symmetric key are accepted";
pub(super) const NOT_INCLUDED: &str = "other files are not read: convert each of them";
const NO_NAT: &str = "packets can't ask for address translation";
const NO_COMMANDS: &str = "packets can't bring commands: write one in on_open";

/// Keys that make a stanza impossible when they are on.
const IMPOSSIBLE_ON: [(&str, &str); 5] = [
    ("FORCE_MASQUERADE", NO_NAT),
    ("FORWARD_ALL", NO_NAT),
    ("DISABLE_DNAT", NO_NAT),
    ("ENABLE_CMD_EXEC", NO_COMMANDS),
    ("ENABLE_CMD_SUDO_EXEC", NO_COMMANDS),
];

/// Keys that make a stanza impossible when they are there.
const IMPOSSIBLE_SET: [(&str, &str); 4] = [
    ("FORCE_NAT", NO_NAT),
    ("FORCE_SNAT", NO_NAT),
    ("CMD_EXEC_USER", NO_COMMANDS),
    ("CMD_EXEC_GROUP", NO_COMMANDS),
];

const FW_ACCESS_TIMEOUT_S: u64 = 30;
const MAX_FW_TIMEOUT_S: u64 = 300;

/// A converted user.
#[derive(Debug)]
pub(super) struct ConvertedUser {
    pub(super) name: String,
    /// The text of its table, with the place of the key file as `{file}`.
    pub(super) table: Vec<String>,
    /// The lines of the key file.
    pub(super) keys: String,
    /// The settings that decide which packets are its own.
    pub(super) fwknop: Fwknop,
    /// The common part of its doors: keys and values, and the ports, one door each.
    pub(super) door: Vec<String>,
    pub(super) ports: Vec<Ports>,
    pub(super) notes: Vec<Problem>,
}

/// Converts a stanza; `number` counts stanzas from 1, and `open` are the ports of one without `OPEN_PORTS`.
///
/// # Errors
/// Returns the lines that make it impossible, with the reasons.
pub(super) fn convert(
    stanza: &AccessStanza,
    number: usize,
    open: &[Ports],
) -> Result<ConvertedUser, Vec<Problem>> {
    let mut user = UserDraft {
        stanza,
        wrong: Vec::new(),
        notes: Vec::new(),
    };
    let keys = user.keys();
    user.empty();
    user.impossible();
    let source = user.source();
    let ports = user.ports(open);
    let target = user.target();
    let [open_for, most] = user.timeouts();
    let until = user.until();
    let commands = user.commands();
    let username = stanza
        .get("REQUIRE_USERNAME")
        .map(|line| line.value.clone());
    user.rest();
    if !user.wrong.is_empty() {
        return Err(user.wrong);
    }
    let (keys, read) = keys.unzip();
    let keys = keys.unwrap_or_default();
    let fwknop = Fwknop {
        file: PathBuf::new(),
        source: source.clone(),
        username: username.clone(),
        keys: read,
    };
    let fits = |name: &&String| {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (1..=40).contains(&name.len()) && name.chars().all(is_fine)
    };
    let name = username.as_ref().filter(fits).cloned();
    let name = name.unwrap_or_else(|| format!("user{number}"));
    let mut table = vec!["fwknop = {file}".to_owned(), "doors = {doors}".to_owned()];
    table.extend(username.map(|name| format!("username = {}", string(&name))));
    if !source.is_empty() {
        table.push(format!("source = {}", list(&source)));
    }
    if stanza.requires_source() {
        table.push("bind = true".to_owned());
    }
    table.extend(until.map(|until| format!("until = {until}")));
    let mut door = vec![
        format!("open_for = \"{open_for}s\""),
        format!("open_for_max = \"{}s\"", most.max(open_for)),
    ];
    door.extend(target.map(|target| format!("target = {}", string(&target))));
    door.extend(commands);
    Ok(ConvertedUser {
        name,
        table,
        keys,
        fwknop,
        door,
        ports,
        notes: user.notes,
    })
}

struct UserDraft<'s> {
    stanza: &'s AccessStanza,
    /// Lines that make the stanza impossible.
    wrong: Vec<Problem>,
    /// Lines that have no effect, or another one.
    notes: Vec<Problem>,
}

fn problem(line: &AccessLine, reason: impl Into<String>) -> Problem {
    Problem {
        line: Some(line.number),
        key: line.shown_key().to_owned(),
        reason: reason.into(),
    }
}

impl<'s> UserDraft<'s> {
    fn refuse(&mut self, line: &AccessLine, reason: impl Into<String>) {
        self.wrong.push(problem(line, reason));
    }

    fn refuse_all(&mut self, key: &str, reason: impl Into<String>) {
        self.wrong.push(Problem {
            line: Some(self.stanza.number()),
            key: key.to_owned(),
            reason: reason.into(),
        });
    }

    /// Returns the lines of the key file.
    fn keys(&mut self) -> Option<(String, FwknopKeys)> {
        let stanza = self.stanza;
        let lines = [KEY, HMAC_KEY].map(|names| stanza.get_any(names));
        if lines[0].is_none()
            && let Some(line) = stanza
                .lines
                .iter()
                .find(|line| line.key.starts_with("GPG_"))
        {
            self.refuse(line, NO_GPG);
            return None;
        }
        let text = lines.map(|line| {
            line.map_or_else(String::new, |line| format!("{} {}\n", line.key, line.value))
        });
        let text = text.concat();
        match fwknop::parse(&text) {
            Ok(keys) => Some((text, keys)),
            Err(reason) => {
                // Lines are counted in the key file.
                let mut read = (1..).zip(lines.iter().flatten());
                let wrong = read.find_map(|(number, line)| {
                    let reason = reason.strip_prefix(&format!("line {number} "))?;
                    Some((line, reason))
                });
                match wrong {
                    Some((line, reason)) => self.refuse(line, reason),
                    None => self.refuse_all("KEY", reason),
                }
                None
            }
        }
    }

    /// Refuses lines that need a value and have none: without it, a limit would be no limit.
    fn empty(&mut self) {
        let stanza = self.stanza;
        for line in &stanza.lines {
            if USED.contains(&line.key.as_str()) && line.value.is_empty() {
                self.refuse(line, "no value: write one, or remove the line");
            }
        }
    }

    fn impossible(&mut self) {
        let stanza = self.stanza;
        let on = IMPOSSIBLE_ON.iter().filter(|(key, _)| stanza.has(key));
        for (key, reason) in on.chain(&IMPOSSIBLE_SET) {
            if let Some(line) = stanza.get(key) {
                self.refuse(line, *reason);
            }
        }
        if let Some(line) = stanza.get("HMAC_DIGEST_TYPE")
            && !line.value.eq_ignore_ascii_case("sha256")
        {
            self.refuse(
                line,
                "only SHA256 is supported: change it here and in .fwknoprc",
            );
        }
        if let Some(line) = stanza.get("ENCRYPTION_MODE")
            && !line.value.eq_ignore_ascii_case("cbc")
        {
            self.refuse(
                line,
                "only CBC is supported: change it here and in .fwknoprc",
            );
        }
    }

    fn source(&mut self) -> Vec<Prefix> {
        let Some(line) = self.stanza.get("SOURCE") else {
            return Vec::new();
        };
        let mut prefixes = Vec::new();
        let mut is_any = false;
        for item in line.items() {
            if item.eq_ignore_ascii_case("any") {
                is_any = true;
                continue;
            }
            if item.starts_with('!') {
                self.refuse(line, "an exclusion can't be written: list what may ask");
                continue;
            }
            match prefix(item) {
                Some(prefix) => prefixes.push(prefix),
                None => self.refuse(line, format!("{item:?} is not an address or a prefix")),
            }
        }
        if is_any {
            return Vec::new();
        }
        if line.items().next().is_none() && !line.value.is_empty() {
            self.refuse(line, "no address is named: write ANY for all");
        }
        if prefixes.len() > FWKNOP_SOURCES_MAX {
            self.refuse(
                line,
                format!(
                    "{} prefixes, and a user may have {FWKNOP_SOURCES_MAX}: join some of them",
                    prefixes.len()
                ),
            );
        }
        prefixes
    }

    /// Returns the ports that a client may ask for, without those of `RESTRICT_PORTS`.
    fn ports(&mut self, open: &[Ports]) -> Vec<Ports> {
        let stanza = self.stanza;
        let restrict = stanza.get("RESTRICT_PORTS");
        let restricted = restrict.map_or_else(Vec::new, |line| self.listed(line));
        let Some(line) = stanza.get("OPEN_PORTS") else {
            let ports: BTreeSet<_> = open.iter().copied().collect();
            let ports = without(ports, &restricted);
            if open.is_empty() {
                self.refuse_all(
                    "OPEN_PORTS",
                    "missing: the client chooses the ports, but a door needs them; add the ports \
                     that clients ask for, or name them with --open, as in --open tcp/22",
                );
            } else if ports.is_empty() {
                self.refuse_all(
                    "RESTRICT_PORTS",
                    "it has all ports of --open: name another port",
                );
            }
            return ports;
        };
        let mut ports = Vec::new();
        for port in self.listed(line) {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let ports = without(ports, &restricted);
        if ports.is_empty() {
            self.refuse(line, "no port is left: add one");
        }
        ports
    }

    /// Returns the ports of a line, and refuses items that are none: a restriction that is not understood must not be
    /// left out.
    fn listed(&mut self, line: &AccessLine) -> Vec<Ports> {
        let mut ports = Vec::new();
        for item in line.items() {
            match item.to_ascii_lowercase().parse::<Ports>() {
                Ok(port) if port.first == port.last => ports.push(port),
                Ok(_) => self.refuse(
                    line,
                    format!("{item:?} is a range, which fwknop has not: list the ports"),
                ),
                Err(_) => self.refuse(line, format!("{item:?} is not tcp or udp with a port")),
            }
        }
        ports
    }

    fn target(&mut self) -> Option<String> {
        let line = self.stanza.get("DESTINATION")?;
        if line.value.eq_ignore_ascii_case("any") {
            return None;
        }
        match prefix(&line.value) {
            Some(Prefix {
                address,
                bits: 32 | 128,
            }) => Some(address.to_string()),
            Some(_) | None => {
                self.refuse(
                    line,
                    "a door is for one address of this host or for all: name one",
                );
                None
            }
        }
    }

    /// Returns the default and the longest time of a grant, in seconds.
    fn timeouts(&mut self) -> [u64; 2] {
        let rows = [
            ("FW_ACCESS_TIMEOUT", FW_ACCESS_TIMEOUT_S),
            ("MAX_FW_TIMEOUT", MAX_FW_TIMEOUT_S),
        ];
        rows.map(|(key, default)| {
            let Some(line) = self.stanza.get(key) else {
                return default;
            };
            match line.value.parse() {
                Ok(seconds @ 1..=2_592_000) => seconds,
                Ok(_) | Err(_) => {
                    self.refuse(line, "not a time that a grant may last: write 1 to 2592000");
                    default
                }
            }
        })
    }

    /// Returns the end: fwknopd refuses packets from the beginning of the day on.
    fn until(&mut self) -> Option<String> {
        let line = self.stanza.get_any(EXPIRE)?;
        if line.key == "ACCESS_EXPIRE_EPOCH" {
            let end = line.value.parse().ok();
            let end = end.and_then(|seconds| Timestamp::from_second(seconds).ok());
            if end.is_none() {
                self.refuse(line, "not a number of seconds since 1970");
            }
            return end.map(|end| end.to_string());
        }
        let day = Date::strptime("%m/%d/%Y", &line.value).ok();
        let last = day.and_then(|day| day.yesterday().ok());
        match last {
            Some(last) => Some(last.to_string()),
            None => {
                self.refuse(line, "not a date of the form MM/DD/YYYY");
                None
            }
        }
    }

    fn commands(&mut self) -> Vec<String> {
        let stanza = self.stanza;
        let mut keys = Vec::new();
        for (key, ours) in [
            ("CMD_CYCLE_OPEN", "on_open"),
            ("CMD_CYCLE_CLOSE", "on_close"),
        ] {
            let Some(line) = stanza.get(key).filter(|line| line.value != "NONE") else {
                continue;
            };
            match words(&line.value) {
                Some(words) => keys.push(format!("{ours} = {}", list(&words))),
                None => self.refuse(
                    line,
                    "the command needs a shell or a variable other than $IP, $SRC, $PORT: write \
                     it to a script",
                ),
            }
        }
        if let Some(line) = stanza.get("CMD_CYCLE_TIMER") {
            let reason = "not used: the closing command runs when the grant ends, see open_for";
            self.notes.push(problem(line, reason));
        }
        if let Some(line) = stanza.get("CMD_CYCLE_OPEN") {
            let reason = "in fwknop the command replaces the firewall rule; here it runs besides, \
                          and the ports are protected";
            self.notes.push(problem(line, reason));
        }
        keys
    }

    /// Notes lines that have no effect.
    fn rest(&mut self) {
        for line in &self.stanza.lines {
            let is_read = USED.contains(&line.key.as_str())
                || [&IMPOSSIBLE_ON[..], &IMPOSSIBLE_SET]
                    .concat()
                    .iter()
                    .any(|(key, _)| *key == line.key);
            if !is_read {
                self.notes.push(problem(line, unread(&line.key)));
            } else if let Some(later) = self.stanza.later(line) {
                let reason = format!("not used: line {} takes its place", later.number);
                self.notes.push(problem(line, reason));
            }
        }
    }
}

/// Returns why a key has no effect.
fn unread(key: &str) -> &'static str {
    match key {
        _ if key.starts_with("GPG_") => NOT_GPG,
        _ if key.starts_with("%include") => NOT_INCLUDED,
        _ => "not used",
    }
}
