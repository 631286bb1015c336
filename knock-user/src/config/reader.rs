//! Reads the keys of a whole file.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use toml::de::DeTable;

use super::{
    door, fleet, limits,
    places::{FileLines, TableLines},
    section::{Section, TomlItem},
    spa, statements, user,
};
use crate::model::{
    problem::ProblemReport,
    settings::{Control, Decoys, Established, Exempt, Lockout, Mode, Prefix, Scope, Settings},
    sources::{self, Part},
};

const KEYS: &[&str] = &[
    "include",
    "interfaces",
    "mode",
    "protect",
    "trust",
    "block",
    "strict",
    "exempt",
    "established",
    "lockout",
    "limits",
    "decoys",
    "control",
    "next_line",
    "metrics",
    "fleet",
    "spa",
    "user",
    "door",
];

/// The keys of an included file.
const INCLUDED_KEYS: &[&str] = &["user", "door"];

/// The default time for which an established connection without packets is kept.
const IDLE: Duration = Duration::from_secs(2 * 3600);
/// Twice as long as Linux remembers a UDP exchange (`nf_conntrack_udp_timeout_stream`), and the
/// time after which RFC 4787 lets NATs give the port to another host.
const IDLE_UDP: Duration = Duration::from_secs(5 * 60);
/// The default length of a lockout.
const LOCKOUT: Duration = Duration::from_secs(60);
/// The ports from which decoys are drawn by default.
const DECOY_RANGE: std::ops::RangeInclusive<u16> = 1024..=65535;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// A month.
const IDLE_MOST: Duration = Duration::from_secs(30 * 86_400);
/// The kernel side counts failures in 16 bits; useful limits are far below.
const FAILURES_MOST: u16 = 1000;
/// More decoys hide nothing better.
const DECOYS_MOST: u16 = 10_000;
/// `ALTIFNAMSIZ`, without its zero byte: alternative names may be longer than names.
const INTERFACE_NAME_MOST: usize = 127;
/// The limit of useradd(8) and groupadd(8).
const GROUP_NAME_MOST: usize = 32;

/// The part of a file that could be read.
pub(super) struct ReadFile {
    pub(super) settings: Settings,
    pub(super) places: FileLines,
    /// Whether every door and user could be read.
    pub(super) complete: bool,
}

/// Reads a file; wrong values are reported and left out.
pub(super) fn read(text: &str, report: &mut ProblemReport) -> Option<ReadFile> {
    let mut parts = sources::parts(text).into_iter();
    let rest = readable(parts.next()?, report);
    let root = DeTable::parse(&rest).ok()?;
    let mut top = Section::new("the file", 1, root.get_ref(), KEYS, report);
    let top = &mut top;
    // The files were joined to this text before it is read.
    let include = top.or("include", report, Vec::new(), |item, report| {
        item.list(report, |name| match name {
            "" => Err("empty: name a file, or remove it"),
            name => Ok(name.to_owned()),
        })
    });
    let (spa, spa_lines) = spa::read(top, report).unzip();
    let (fleet, fleet_lines) = fleet::read(top, report).unzip();
    let (limits, limit_lines) = limits::read(top, report).unzip();
    let mut settings = Settings {
        interfaces: top.or("interfaces", report, Vec::new(), interfaces),
        mode: top.or("mode", report, Mode::Auto, |item, report| {
            let modes = [
                ("auto", Mode::Auto),
                ("native", Mode::Native),
                ("skb", Mode::Skb),
                ("tc", Mode::Tc),
            ];
            item.word(report, &modes)
        }),
        protect: top.or("protect", report, Vec::new(), |item, report| {
            item.list(report, str::parse)
        }),
        trust: top.or("trust", report, Vec::new(), |item, report| {
            item.list(report, str::parse::<Prefix>)
        }),
        block: block(top, report),
        strict: top.or("strict", report, true, |item, report| item.boolean(report)),
        exempt: top.or("exempt", report, Exempt::Listening, exempt),
        established: established(top, report),
        lockout: lockout(top, report),
        limits: limits.unwrap_or_default(),
        decoys: decoys(top, report),
        control: control(top, report),
        next_line: listen(top, report, &NEXT_LINE),
        metrics: listen(top, report, &METRICS),
        fleet,
        spa,
        users: Vec::new(),
        doors: Vec::new(),
    };
    let mut places = FileLines {
        spa: spa_lines.unwrap_or_default(),
        limits: limit_lines.unwrap_or_default(),
        fleet: fleet_lines.unwrap_or_default(),
        include,
        ..FileLines::default()
    };
    let mut complete = report.broken.is_empty();
    tables(top, report, &mut settings, &mut places, &mut complete);
    places.keys = std::mem::take(&mut top.lines);
    for part in parts {
        let rest = readable(part, report);
        let Ok(root) = DeTable::parse(&rest) else {
            complete = false;
            continue;
        };
        let line = report.line(&(0..0));
        let mut top = Section::included(
            "an included file",
            line,
            root.get_ref(),
            INCLUDED_KEYS,
            KEYS,
            report,
        );
        tables(&mut top, report, &mut settings, &mut places, &mut complete);
    }
    complete &= report.broken.is_empty();
    report.part = 0;
    places.sources.clone_from(&report.sources);
    Some(ReadFile {
        settings,
        places,
        complete,
    })
}

/// Returns the text of a part without the statements that can't be read, which are reported.
fn readable<'t>(part: Part<'t>, report: &mut ProblemReport) -> Cow<'t, str> {
    report.part = part.offset;
    match DeTable::parse(part.text) {
        Ok(_) => Cow::Borrowed(part.text),
        Err(error) => statements::readable(part.text, &error, report).into(),
    }
}

/// Reads the doors and users of a file.
fn tables(
    top: &mut Section<'_, '_>,
    report: &mut ProblemReport,
    settings: &mut Settings,
    places: &mut FileLines,
    complete: &mut bool,
) {
    if let Some(item) = top.item("door", report) {
        for mut section in item.sections("a door", door::KEYS, report) {
            let Some(door) = door::read(&mut section, report) else {
                *complete = false;
                continue;
            };
            settings.doors.push(door);
            let sources = ["knock", "one_time", "otp"];
            places.doors.push(TableLines {
                line: section.line,
                lacks_sequence: sources.iter().all(|key| section.lacks(key)),
                items: Vec::new(),
                keys: section.lines,
            });
        }
    }
    if let Some(item) = top.item("user", report) {
        for mut section in item.sections("a user", user::KEYS, report) {
            let Some((user, key_lines)) = user::read(&mut section, report) else {
                *complete = false;
                continue;
            };
            settings.users.push(user);
            places.users.push(TableLines {
                line: section.line,
                lacks_sequence: false,
                items: key_lines,
                keys: section.lines,
            });
        }
        settings.spa.get_or_insert_default();
    }
    let is_misspelt = |key| top.item(key, report).is_none() && !top.lacks(key);
    *complete &= !["door", "user"].into_iter().any(is_misspelt);
}

fn interfaces(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<String>> {
    let names = item.list(report, |name| {
        let fits = |c: char| !c.is_whitespace() && c != '/' && !c.is_control();
        let named = !["", ".", ".."].contains(&name) && name.chars().all(fits);
        if named && name.len() <= INTERFACE_NAME_MOST {
            Ok(name.to_owned())
        } else {
            Err(format!(
                "{name:?} is not an interface name: use one that `ip link` lists"
            ))
        }
    })?;
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|other| other == name) {
            return item.wrong(report, format!("{name:?} is listed twice: remove one"));
        }
    }
    Some(names)
}

fn exempt(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Exempt> {
    if item.is_text() {
        let list = Some("a list of ports, as in [\"tcp/443\"]");
        return item
            .word_or(report, &[("listening", ())], list)
            .map(|()| Exempt::Listening);
    }
    item.list(report, str::parse).map(Exempt::Listed)
}

fn established(top: &mut Section<'_, '_>, report: &mut ProblemReport) -> Established {
    let default = Established {
        keep: true,
        idle: IDLE,
        idle_udp: IDLE_UDP,
    };
    top.or("established", report, default, |item, report| {
        let mut section = item.section("[established]", &["keep", "idle", "idle_udp"], report)?;
        Some(Established {
            keep: section.or("keep", report, true, |item, report| item.boolean(report)),
            idle: section.or("idle", report, IDLE, |item, report| {
                item.duration(report, SECOND, IDLE_MOST)
            }),
            idle_udp: section.or("idle_udp", report, IDLE_UDP, |item, report| {
                item.duration(report, SECOND, IDLE_MOST)
            }),
        })
    })
}

fn block(top: &mut Section<'_, '_>, report: &mut ProblemReport) -> Vec<Prefix> {
    top.or("block", report, Vec::new(), |item, report| {
        let mut section = item.section("[block]", &["prefixes"], report)?;
        if section.lacks("prefixes") {
            report.add(
                section.line,
                "prefixes",
                "missing: the sources to block, as in prefixes = [\"203.0.113.0/24\"]",
            );
        }
        section.get("prefixes", report, |item, report| {
            item.list(report, str::parse::<Prefix>)
        })
    })
}

fn lockout(top: &mut Section<'_, '_>, report: &mut ProblemReport) -> Option<Lockout> {
    top.get("lockout", report, |item, report| {
        let mut section = item.section("[lockout]", &["failures", "for", "scope"], report)?;
        let failures = section.or("failures", report, 0, |item, report| {
            item.number(report, 0..=FAILURES_MOST)
        });
        if section.lacks("failures") {
            report.add(
                section.line,
                "failures",
                "missing: without it no source is locked out; write it as in failures = 5",
            );
        }
        let lockout = Lockout {
            failures,
            duration: section.or("for", report, LOCKOUT, |item, report| {
                item.duration(report, SECOND, DAY)
            }),
            scope: section.or("scope", report, Scope::Source, |item, report| {
                item.word(
                    report,
                    &[("source", Scope::Source), ("global", Scope::Global)],
                )
            }),
        };
        Some(lockout)
    })
    .filter(|lockout| lockout.failures > 0)
}

fn decoys(top: &mut Section<'_, '_>, report: &mut ProblemReport) -> Decoys {
    let none = Decoys::Drawn {
        count: 0,
        range: DECOY_RANGE,
    };
    top.or("decoys", report, none, |item, report| {
        let mut section = item.section("[decoys]", &["count", "range", "ports"], report)?;
        let listed = section.get("ports", report, |item, report| {
            item.list(report, str::parse)
        });
        let count = section.or("count", report, 0, |item, report| {
            item.number(report, 0..=DECOYS_MOST)
        });
        let range = section.or("range", report, DECOY_RANGE, |item, report| {
            item.parsed(report, knock_sequence::ports::range)
        });
        let Some(ports) = listed else {
            return Some(Decoys::Drawn { count, range });
        };
        for key in ["count", "range"] {
            if let Some(item) = section.item(key, report) {
                let reason = "decoys are either drawn or listed: remove it, or remove ports";
                item.wrong::<()>(report, reason);
            }
        }
        Some(Decoys::Listed(ports))
    })
}

fn control(top: &mut Section<'_, '_>, report: &mut ProblemReport) -> Control {
    top.or("control", report, Control::default(), |item, report| {
        let mut section = item.section("[control]", &["group"], report)?;
        let group = section.get("group", report, |item, report| {
            item.parsed(report, group_name)
        });
        Some(Control { group })
    })
}

/// A table with the address on which a server listens.
struct ListenTable {
    key: &'static str,
    name: &'static str,
    /// An example, and what it means.
    all: &'static str,
    /// An example with one address.
    one: &'static str,
}

const NEXT_LINE: ListenTable = ListenTable {
    key: "next_line",
    name: "[next_line]",
    all: "\"[::]:7001\" for all addresses of this host",
    one: "\"192.0.2.1:7001\"",
};

const METRICS: ListenTable = ListenTable {
    key: "metrics",
    name: "[metrics]",
    all: "\"127.0.0.1:9482\" for programs on this host",
    one: "\"192.0.2.1:9482\"",
};

fn listen(
    top: &mut Section<'_, '_>,
    report: &mut ProblemReport,
    table: &ListenTable,
) -> Option<SocketAddr> {
    top.get(table.key, report, |item, report| {
        let mut section = item.section(table.name, &["listen"], report)?;
        if section.lacks("listen") {
            let (example, _) = table.all.split_once(' ').unwrap_or((table.all, ""));
            report.add(
                section.line,
                "listen",
                format!("missing: an address and a TCP port, as in listen = {example}"),
            );
        }
        section.get("listen", report, |item, report| {
            item.parsed(report, |text| address(text, table))
        })
    })
}

fn address(text: &str, table: &ListenTable) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(at) if at.port() != 0 => Ok(at),
        _ => Err(format!(
            "{text:?} is not an address with a TCP port: write {}, or one, as in {}",
            table.all, table.one
        )),
    }
}

/// Checks the form of a group name. Whether the group exists is known on the host of the daemon.
fn group_name(name: &str) -> Result<String, String> {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !":,/".contains(c);
    if !name.is_empty() && name.len() <= GROUP_NAME_MOST && name.chars().all(fits) {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "{name:?} is not a group name: use one that `getent group` lists"
        ))
    }
}
