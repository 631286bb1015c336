//! `knock-user import-fwknop`: converts the configuration of fwknop's server.
//!
//! ```text
//! access.conf ─▶ stanza (lines) ─▶ user (users and doors) ─▶ seq.toml, and a key file for each user
//! ```
//!
//! Keys go to files that only their owner can read, never to the output. A stanza that can't be
//! converted stays as a comment with the reasons.

mod stanza;
mod user;
mod values;

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use knock_common::spa::layout::FWKNOP_KEYS_MAX;
use knock_sequence::{Ports, Protocol};

use self::{
    stanza::{AccessLine, AccessStanza},
    user::ConvertedUser,
};
use crate::{
    config::{self, shared_keys::are_alike},
    host::{os_error, private_files},
    model::{
        problem::{Problem, Problems},
        spa::Fwknop,
    },
    tools::toml_text::{comment, commented, list, string},
};

/// The files to convert.
#[derive(Args, Clone, Debug)]
pub struct ImportOptions {
    /// Read the stanzas from this file, such as /etc/fwknop/access.conf
    #[arg(value_name = "ACCESS_CONF")]
    pub access: PathBuf,
    /// Read interface and port from this file, such as /etc/fwknop/fwknopd.conf
    #[arg(value_name = "FWKNOPD_CONF")]
    pub server: Option<PathBuf>,
    /// Write the key files to this directory, which is where the configuration belongs
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    pub keys: PathBuf,
    /// Let stanzas without OPEN_PORTS open these ports, such as tcp/22
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub open: Vec<Ports>,
}

/// A converted configuration.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ImportedAccess {
    /// The configuration.
    pub toml: String,
    /// The name and content of each key file.
    pub keys: Vec<(String, String)>,
    /// Notes about lines of access.conf.
    pub notes: Vec<Problem>,
    /// Notes about lines of fwknopd.conf.
    pub server_notes: Vec<Problem>,
}

/// Writes the key files and prints the configuration to `out`, and notes about lines that have no
/// effect, or another one, to `stderr`.
///
/// # Errors
/// Returns [`Problems`] if a file can't be read or no stanza can be converted, or an error if a key
/// file exists with other keys or can't be written.
pub fn run(options: &ImportOptions, out: &mut impl Write, stderr: &mut impl Write) -> Result<()> {
    let access = read(&options.access)?;
    let server = options.server.as_deref().map(read).transpose()?;
    let ImportedAccess {
        toml,
        keys,
        notes,
        server_notes,
    } = import(&access, server.as_deref(), &options.open);
    for (name, text) in &keys {
        let path = options.keys.join(name);
        match private_files::create(&path, text.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if fs::read_to_string(&path).is_ok_and(|found| found == *text) {
                    continue;
                }
                bail!(
                    "{} exists with other content, and is not replaced: remove it, or name another \
                     directory with --keys",
                    path.display()
                );
            }
            Err(error) => bail!(private_files::not_created(&path, &error, "--keys")),
            Ok(()) => {}
        }
    }
    out.write_all(toml.as_bytes())
        .context("writing the configuration")?;
    let of_server = options.server.iter().flat_map(|path| {
        let notes = server_notes.iter();
        notes.map(|note| note.render("note", &path.display().to_string()))
    });
    let of_access = notes
        .iter()
        .map(|note| note.render("note", &options.access.display().to_string()));
    for note in of_access.chain(of_server) {
        writeln!(stderr, "{note}").context("writing the notes")?;
    }
    if keys.is_empty() && !toml.contains(LEFT_OUT) {
        bail!(
            "{} has no stanza to convert: a stanza begins with a line like SOURCE ANY",
            options.access.display()
        );
    }
    if keys.is_empty() {
        bail!("no stanza could be converted: the notes give the reasons");
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Problems> {
    let file = path.display().to_string();
    config::read_text(path).map_err(|error| Problems {
        list: vec![Problem {
            line: None,
            key: String::new(),
            reason: format!("can't be read: {}", os_error::reason(&error, &file)),
        }],
        file: file.into(),
    })
}

/// Converts the texts of access.conf and fwknopd.conf. Stanzas without `OPEN_PORTS` open the ports `open`.
pub fn import(access: &str, server: Option<&str>, open: &[Ports]) -> ImportedAccess {
    let mut imported = ImportedAccess::default();
    let mut page = String::new();
    imported.server_notes = match server {
        Some(server) => head(server, &mut page),
        None => Vec::new(),
    };
    let (before, stanzas) = stanza::stanzas(stanza::lines(access));
    for line in before {
        let reason = match line.key.starts_with("%include") {
            true => user::NOT_INCLUDED,
            false => "not used: it is in front of the first SOURCE",
        };
        imported.notes.push(note(&line, reason));
    }
    let mut doors: Vec<DoorDraft> = Vec::new();
    let mut users: Vec<String> = Vec::new();
    let mut known: Vec<(usize, Fwknop)> = Vec::new();
    for (number, stanza) in (1..).zip(&stanzas) {
        match user::convert(stanza, number, open) {
            Ok(converted) => {
                if let Some(reason) = unusable(&converted, &known) {
                    let reasons = [Problem {
                        line: Some(stanza.number()),
                        key: "SOURCE".to_owned(),
                        reason,
                    }];
                    page += &left_out(stanza, &reasons);
                    imported.notes.extend(reasons);
                    continue;
                }
                known.push((stanza.number(), converted.fwknop.clone()));
                imported.notes.extend(converted.notes.iter().cloned());
                page += &user_table(&converted, &mut users, &mut doors, &mut imported.keys);
            }
            Err(reasons) => {
                page += &left_out(stanza, &reasons);
                imported.notes.extend(reasons);
            }
        }
    }
    for door in &doors {
        page += &door.table();
    }
    imported.notes.sort();
    imported.toml = comment(
        "Converted from the configuration of fwknop. The keys are in files beside this one.",
    ) + &page;
    imported
}

/// Returns why a host can't have a user beside those of the stanzas at these lines.
fn unusable(converted: &ConvertedUser, known: &[(usize, Fwknop)]) -> Option<String> {
    if known.len() == FWKNOP_KEYS_MAX as usize {
        return Some(format!(
            "a host has at most {FWKNOP_KEYS_MAX} users of fwknop, because each packet costs an HMAC for each of \
             them: make keys with `knock-client keygen` for the others"
        ));
    }
    let mut others = known.iter();
    let (line, _) = others.find(|(_, other)| are_alike(&converted.fwknop, other))?;
    Some(format!(
        "the stanza on line {line} has the same HMAC key, so packets can't be assigned: make other keys with `fwknop \
         --key-gen`, or name a SOURCE without common addresses in both"
    ))
}

fn note(line: &AccessLine, reason: &str) -> Problem {
    Problem {
        line: Some(line.number),
        key: line.shown_key().to_owned(),
        reason: reason.to_owned(),
    }
}

/// Writes the settings of fwknopd.conf, and returns notes about its other lines.
fn head(server: &str, page: &mut String) -> Vec<Problem> {
    let mut notes = Vec::new();
    let mut port = None;
    let lines = stanza::lines(server);
    let has_server = lines
        .iter()
        .any(|line| line.key == "ENABLE_UDP_SERVER" && line.is_on());
    for line in &lines {
        match line.key.as_str() {
            "PCAP_INTF" => *page += &format!("interfaces = {}\n", list(&[&line.value])),
            "PCAP_FILTER" => match filter_port(&line.value) {
                Some(number) => port = port.or(Some(number)),
                None => notes.push(note(line, "not used: only \"udp port N\" names a port")),
            },
            "UDPSERV_PORT" if has_server => match line.value.parse() {
                Ok(number @ 1..) => port = Some(number),
                Ok(0) | Err(_) => notes.push(note(line, "not used: it is not a port")),
            },
            "MAX_SPA_PACKET_AGE" if line.value != "120" => {
                notes.push(note(
                    line,
                    "not used: packets of fwknop may be 120 seconds old",
                ));
            }
            "ENABLE_SPA_PACKET_AGING" if !line.is_on() => notes.push(note(
                line,
                "not used: old packets are always refused, since nothing else protects a replay \
                 cache of limited size",
            )),
            "MAX_SPA_PACKET_AGE" | "ENABLE_SPA_PACKET_AGING" | "ENABLE_UDP_SERVER" => {}
            _ => notes.push(note(line, "not used")),
        }
    }
    if let Some(port) = port.filter(|port| *port != knock_sequence::spa::PORT) {
        let ports = Ports {
            protocol: Protocol::Udp,
            first: port,
            last: port,
        };
        *page += &format!("\n[spa]\nports = {}\n", list(&[ports]));
    }
    notes
}

/// Returns the port of a filter like `udp port 62201` or `udp dst port 62201`.
fn filter_port(filter: &str) -> Option<u16> {
    let words: Vec<_> = filter.split_whitespace().collect();
    match words.as_slice() {
        ["udp", "port", port] | ["udp", "dst", "port", port] => {
            port.parse().ok().filter(|port| *port != 0)
        }
        _ => None,
    }
}

/// A door that converted users share.
struct DoorDraft {
    name: String,
    ports: Ports,
    keys: Vec<String>,
}

impl DoorDraft {
    fn table(&self) -> String {
        format!(
            "\n[[door]]\nname = {}\nopen = {}\n{}\n",
            string(&self.name),
            list(&[self.ports]),
            self.keys.join("\n")
        )
    }
}

/// Returns the table of a user, and adds its doors and its key file.
fn user_table(
    converted: &ConvertedUser,
    users: &mut Vec<String>,
    doors: &mut Vec<DoorDraft>,
    keys: &mut Vec<(String, String)>,
) -> String {
    let name = free(&converted.name, |name| {
        users.iter().all(|other| other != name)
    });
    users.push(name.clone());
    let file = format!("{name}.fwknop");
    keys.push((file.clone(), converted.keys.clone()));
    let mut names = Vec::new();
    for &ports in &converted.ports {
        let same = |door: &&DoorDraft| door.ports == ports && door.keys == converted.door;
        let found = doors.iter().find(same).map(|door| door.name.clone());
        let name = found.unwrap_or_else(|| {
            let wanted = values::door_name(ports);
            let name = free(&wanted, |name| doors.iter().all(|other| other.name != name));
            doors.push(DoorDraft {
                name: name.clone(),
                ports,
                keys: converted.door.clone(),
            });
            name
        });
        names.push(name);
    }
    let table = converted.table.join("\n");
    let table = table
        .replace("{file}", &string(&file))
        .replace("{doors}", &list(&names));
    format!("\n[[user]]\nname = {}\n{table}\n", string(&name))
}

/// Returns a name, with a number behind it if it is not free.
fn free(wanted: &str, is_free: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number: u32| format!("{wanted}-{number}"));
    let mut names = [wanted.to_owned()].into_iter().chain(numbered);
    names.find(|name| is_free(name)).unwrap_or_default()
}

/// How the reason begins why a stanza is left out.
const LEFT_OUT: &str = "Left out, line";

/// Returns a stanza as a comment with the reasons why it is left out.
fn left_out(stanza: &AccessStanza, reasons: &[Problem]) -> String {
    let reasons = reasons.iter().map(|problem| {
        let line = problem.line.unwrap_or(1);
        comment(&format!(
            "{LEFT_OUT} {line}: {}: {}",
            problem.key, problem.reason
        ))
    });
    let lines: String = stanza
        .lines
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    format!("\n{}{}", reasons.collect::<String>(), commented(&lines))
}
