//! Writes the configuration, and leaves out doors that would make it invalid.

use std::{collections::HashSet, ops::Range};

use knock_sequence::Ports;

use super::{
    conf::{Conf, Located},
    draft::DraftDoor,
    notes,
};
use crate::{
    model::problem::Problem,
    tools::toml_text::{comment, commented, list},
};

/// knockd's default interface.
const INTERFACE: &str = "eth0";

/// The longest name of a door.
const NAME_MOST: usize = 64;

/// The configuration to write.
pub(super) struct TomlPage<'c> {
    pub(super) title: String,
    pub(super) conf: &'c Conf,
    pub(super) interfaces: Option<Located<Vec<String>>>,
    /// The comment at the top of the file.
    pub(super) notes: Vec<Problem>,
    pub(super) doors: Vec<DraftDoor>,
}

/// The lines of the parts.
pub(super) struct PartLines {
    head: Range<usize>,
    /// The lines and the index of each door that is not a comment.
    doors: Vec<(Range<usize>, usize)>,
}

impl<'c> TomlPage<'c> {
    pub(super) fn new(conf: &'c Conf, file: &str) -> Self {
        let mut notes = options(conf);
        let interfaces = interfaces(conf, &mut notes);
        let mut names = HashSet::new();
        let doors = conf
            .doors
            .iter()
            .map(|door| {
                let name = unique(&door.name.value, &mut names);
                DraftDoor::of(door, &name, knocked_interface(&interfaces), None)
            })
            .collect();
        Self {
            title: format!(
                "Converted from {file} by `knock-user import-knockd`. Review it, run `knock-user \
                 check` on it, and remove the firewall rules that knockd's commands have added."
            ),
            conf,
            interfaces,
            notes,
            doors,
        }
    }

    pub(super) fn notes(&self) -> Vec<Problem> {
        let of_doors = self.doors.iter().flat_map(|door| {
            let lost = notes::lost(door, &self.doors);
            let refused = door.refused.iter().map(move |problem| Problem {
                reason: format!("door left out: {}{lost}", problem.reason),
                ..problem.clone()
            });
            door.notes.iter().cloned().chain(refused)
        });
        self.notes.iter().cloned().chain(of_doors).collect()
    }

    pub(super) fn write(&self) -> (String, PartLines) {
        let mut text = comment(&self.title) + "\n";
        for note in &self.notes {
            text += &remark(note);
        }
        match &self.interfaces {
            Some(entry) => text += &format!("interfaces = {}\n", list(&entry.value)),
            None => {
                text += &comment(&format!(
                    "knockd listens on {INTERFACE} by default: name the interface with --iface \
                     or here. interfaces = [\"{INTERFACE}\"]"
                ));
            }
        }
        let mut places = PartLines {
            head: 0..next_line(&text),
            doors: Vec::new(),
        };
        for (index, door) in self.doors.iter().enumerate() {
            text.push('\n');
            let begin = next_line(&text);
            if door.refused.is_empty() {
                text += &door.toml();
                places.doors.push((begin..next_line(&text), index));
            } else {
                let lost = notes::lost(door, &self.doors);
                for problem in &door.refused {
                    text += &remark(&Problem {
                        reason: format!("left out: {}{lost}", problem.reason),
                        ..problem.clone()
                    });
                }
                text += &commented(&door.toml());
            }
        }
        (text, places)
    }

    /// Solves a problem of a door without leaving the door out; returns whether that worked.
    pub(super) fn mends(&mut self, problem: &Problem, index: Option<usize>) -> bool {
        let Some((index, draft)) = index.and_then(|index| Some((index, self.doors.get(index)?)))
        else {
            return false;
        };
        match problem.key.as_str() {
            "knock_pass" => {
                let keys = draft.keys.len();
                if let Some(draft) = self.doors.get_mut(index) {
                    draft.keys.retain(|key| key.name != "knock_pass");
                }
                self.doors
                    .get(index)
                    .is_some_and(|draft| draft.keys.len() < keys)
            }
            "close" => {
                let closable = self.closable(draft);
                let Some(door) = self.conf.doors.get(index) else {
                    return false;
                };
                if closable == draft.closes {
                    return false;
                }
                let interface = knocked_interface(&self.interfaces);
                let changed = DraftDoor::of(door, &draft.name, interface, Some(&closable));
                if let Some(draft) = self.doors.get_mut(index) {
                    *draft = changed;
                }
                true
            }
            _ => false,
        }
    }

    /// Returns those ports of a closing door that another door opens for the same target.
    pub(super) fn closable(&self, closing: &DraftDoor) -> Vec<Ports> {
        let opens = |ports: &Ports| {
            let kept = self.doors.iter().filter(|draft| draft.refused.is_empty());
            kept.filter(|draft| draft.value("target") == closing.value("target"))
                .any(|draft| draft.opens.iter().any(|opened| opened.overlaps(*ports)))
        };
        closing.closes.iter().copied().filter(opens).collect()
    }

    /// Turns doors with problems into comments.
    pub(super) fn leave_out(&mut self, problems: Vec<Problem>, places: &PartLines) {
        let mut is_less = false;
        let mut mended = HashSet::new();
        for problem in problems {
            let line = problem.line.unwrap_or_default();
            let reason = places.translated(&problem.reason, &self.doors);
            let index = places.door_at(line);
            // Further problems of that door refer to its previous state.
            if index.is_some_and(|index| mended.contains(&index)) {
                continue;
            }
            if self.mends(&problem, index) {
                mended.extend(index);
                is_less = true;
            } else if let Some(index) = places.door_at(line)
                && let Some(door) = self.doors.get_mut(index)
            {
                let key = door.keys.iter().find(|key| key.name == problem.key);
                door.refused.push(Problem {
                    line: Some(key.map_or(door.line, |key| key.source)),
                    key: problem.key,
                    reason,
                });
                is_less = true;
            } else if places.head.contains(&line)
                && let Some(Located { line, .. }) = self.interfaces.take()
            {
                self.notes.push(Problem {
                    line: Some(line),
                    key: "interface".to_owned(),
                    reason: format!("left out: {reason}"),
                });
                is_less = true;
            }
        }
        if !is_less {
            // A file without doors has no errors.
            self.interfaces = None;
            for door in &mut self.doors {
                door.refused.push(Problem {
                    line: Some(door.line),
                    key: String::new(),
                    reason: "it can't be separated from the other errors of this file".to_owned(),
                });
            }
        }
    }
}

impl PartLines {
    fn door_at(&self, line: usize) -> Option<usize> {
        let mut doors = self.doors.iter();
        doors
            .find(|(lines, _)| lines.contains(&line))
            .map(|&(_, index)| index)
    }

    /// Replaces the line of a door in a reason with its line in knockd's file.
    fn translated(&self, reason: &str, doors: &[DraftDoor]) -> String {
        const ON_LINE: &str = "on line ";
        let translate = || {
            let (before, rest) = reason.split_once(ON_LINE)?;
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let door = doors.get(self.door_at(number.parse().ok()?)?)?;
            Some(format!("{before}{ON_LINE}{}{after}", door.line))
        };
        translate().unwrap_or_else(|| reason.to_owned())
    }
}

impl DraftDoor {
    fn toml(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            text += &remark(note);
        }
        text += "[[door]]\n";
        for key in &self.keys {
            text += &format!("{} = {}\n", key.name, key.value);
        }
        text
    }
}

/// Returns the interface where knockd's knocks arrive: the first one, if there are several.
fn knocked_interface(interfaces: &Option<Located<Vec<String>>>) -> &str {
    let named = interfaces.as_ref().and_then(|entry| entry.value.first());
    named.map_or(INTERFACE, String::as_str)
}

/// Returns the interfaces that a file names: forks accept several, and `any`.
fn interfaces(conf: &Conf, notes: &mut Vec<Problem>) -> Option<Located<Vec<String>>> {
    let Located { line, value } = conf.interface.as_ref()?;
    let mut note = |reason: String| {
        notes.push(Problem {
            line: Some(*line),
            key: "interface".to_owned(),
            reason,
        });
    };
    let mut names: Vec<String> = Vec::new();
    for item in value.split(',').map(str::trim) {
        // ifconfig's eth0:1 is an address of eth0.
        let name = item.split_once(':').map_or(item, |(name, _)| name);
        if name != item {
            note(format!(
                "{item} is an address of {name}, so {name} is used here"
            ));
        }
        if name == "any" {
            note("any is not an interface: name each one with --iface or here".to_owned());
            return None;
        }
        if !name.is_empty() && !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    let value = names;
    (!value.is_empty()).then_some(Located { line: *line, value })
}

fn next_line(text: &str) -> usize {
    text.bytes().filter(|&byte| byte == b'\n').count() + 1
}

fn remark(note: &Problem) -> String {
    let Problem { line, key, reason } = note;
    let line = line.unwrap_or_default();
    let key = if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    };
    comment(&format!("line {line}: {key}{reason}"))
}

/// Returns notes about `[options]`.
fn options(conf: &Conf) -> Vec<Problem> {
    let mut notes = Vec::new();
    let mut note = |line: Option<usize>, key: &str, reason: &str| {
        notes.extend(line.map(|line| Problem {
            line: Some(line),
            key: key.to_owned(),
            reason: reason.to_owned(),
        }));
    };
    let to_stdout = "not carried over: events are printed to standard output; --log-format knockd \
                prints them as knockd does";
    note(
        conf.syslog.as_ref().map(|entry| entry.line),
        "usesyslog",
        to_stdout,
    );
    note(
        conf.log_file.as_ref().map(|entry| entry.line),
        "logfile",
        to_stdout,
    );
    let line = conf.pid_file.as_ref().map(|entry| entry.line);
    let reason = "not carried over: knock-user writes no PID file; the service manager knows the \
                  process";
    note(line, "pidfile", reason);
    notes
}

/// Returns a unique name of the characters that are allowed here.
fn unique(name: &str, names: &mut HashSet<String>) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let plain: String = name
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .take(NAME_MOST)
        .collect();
    let mut unique = plain.clone();
    let mut number = 1;
    while !names.insert(unique.clone()) {
        number += 1;
        let suffix = format!("-{number}");
        let kept: String = plain.chars().take(NAME_MOST - suffix.len()).collect();
        unique = kept + &suffix;
    }
    unique
}
