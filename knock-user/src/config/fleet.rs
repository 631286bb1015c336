//! Reads `[fleet]`.

use std::{fs, path::PathBuf, time::Duration};

use super::section::{KeyLines, Section, TomlItem};
use crate::{
    fleet::is_name,
    model::{
        fleet::{Alone, Fleet, GRACE, LONGEST, WATCHES},
        problem::ProblemReport,
    },
};

const KEYS: &[&str] = &[
    "servers", "group", "host", "ca", "cert", "key", "seal", "alone", "grace", "longest", "watches",
];

/// A watch answers at least each second; less would count a slow answer as a loss.
const GRACE_LEAST: Duration = Duration::from_secs(3);
const GRACE_MOST: Duration = Duration::from_secs(3600);
const LONGEST_LEAST: Duration = Duration::from_secs(1);
/// As long as a door's `open_for` may be.
const LONGEST_MOST: Duration = Duration::from_secs(30 * 86_400);
/// More members than an engine has.
const WATCHES_MOST: u16 = 9;

/// Reads the table, and the lines of its keys; `None` if it is missing or can't be used, which is reported.
pub(super) fn read(
    top: &mut Section<'_, '_>,
    report: &mut ProblemReport,
) -> Option<(Fleet, KeyLines)> {
    let item = top.item("fleet", report)?;
    let mut section = item.section("[fleet]", KEYS, report)?;
    for (key, reason) in [
        (
            "servers",
            "missing: the members of etcd, as in servers = [\"https://10.0.0.11:2379\"]",
        ),
        (
            "group",
            "missing: the name of the hosts that open together, as in group = \"web\"",
        ),
        (
            "seal",
            "missing: the file with the key of the group, as in seal = [\"/etc/knock/fleet/web.seal\"]; \
             `knock-user fleet key` makes it",
        ),
    ] {
        if section.lacks(key) {
            report.add(section.line, key, reason);
        }
    }
    let servers = section.get("servers", report, servers);
    let group = section.get("group", report, |item, report| item.parsed(report, name));
    let host = match section.item("host", report) {
        Some(item) => item.parsed(report, name),
        None => own_name(&section, report),
    };
    let [ca, cert, key] =
        ["ca", "cert", "key"].map(|file| section.get(file, report, TomlItem::secret_path));
    let seal = section.get("seal", report, seal);
    let fleet = Fleet {
        alone: section.or("alone", report, Alone::default(), |item, report| {
            item.word(report, &Alone::WORDS)
        }),
        grace: section.or("grace", report, GRACE, |item, report| {
            item.duration(report, GRACE_LEAST, GRACE_MOST)
        }),
        longest: section.or("longest", report, LONGEST, |item, report| {
            item.duration(report, LONGEST_LEAST, LONGEST_MOST)
        }),
        watches: section.or("watches", report, WATCHES, |item, report| {
            let number = item.number(report, 1..=WATCHES_MOST)?;
            u8::try_from(number).ok()
        }),
        servers: servers?,
        group: group?,
        host: host?,
        ca,
        cert,
        key,
        seal: seal?,
    };
    check_certificates(&fleet, &section, report);
    Some((fleet, section.lines))
}

/// Reports certificates that do not fit the URLs.
fn check_certificates(fleet: &Fleet, section: &Section<'_, '_>, report: &mut ProblemReport) {
    let line = |key: &str| section.lines.get(key).copied().unwrap_or(section.line);
    let is_encrypted = fleet.servers.iter().any(|url| url.starts_with("https://"));
    let files = [
        ("ca", &fleet.ca),
        ("cert", &fleet.cert),
        ("key", &fleet.key),
    ];
    if !is_encrypted {
        for (key, _) in files.iter().filter(|(_, file)| file.is_some()) {
            let reason = "no member has an https URL, so it is not used: write https:// in servers, or remove it";
            report.add(line(key), key, reason);
        }
        return;
    }
    if fleet.ca.is_none() && section.lacks("ca") {
        let reason = "missing: members with https URLs need the file with their certificate authority, as in \
                      ca = \"/etc/knock/fleet/ca.pem\"";
        report.add(section.line, "ca", reason);
    }
    for (given, missing) in [("cert", "key"), ("key", "cert")] {
        if !section.lacks(given) && section.lacks(missing) {
            let reason =
                format!("a certificate has two files: name the one with the {missing} too");
            report.add(line(given), missing, reason);
        }
    }
}

fn servers(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<String>> {
    let before = report.problems.len();
    let servers = item.list(report, server)?;
    if servers.is_empty() && report.problems.len() == before {
        return item.wrong(report, "empty: name the members of etcd");
    }
    let is_encrypted = |url: &String| url.starts_with("https://");
    if servers.iter().any(is_encrypted) && !servers.iter().all(is_encrypted) {
        return item.wrong(
            report,
            "some URLs are https and others http: write https for all, or records pass in the clear",
        );
    }
    (report.problems.len() == before).then_some(servers)
}

/// Reads the URL of a member: a scheme, a host and a port.
fn server(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_place = |rest: &str| {
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.:[]".contains(letter);
        let port: u16 = port.parse().ok()?;
        (port > 0 && !host.is_empty() && host.chars().all(fits)).then_some(())
    };
    match rest.and_then(is_place) {
        Some(()) => Ok(text.trim_end_matches('/').to_owned()),
        None => Err(format!(
            "{text:?} is not the URL of a member: write it with its port, as in \"https://10.0.0.11:2379\""
        )),
    }
}

fn name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is not a name: write letters, digits, dots, hyphens and underscores"
        )),
    }
}

/// Returns the name of this host.
fn own_name(section: &Section<'_, '_>, report: &mut ProblemReport) -> Option<String> {
    if !section.lacks("host") {
        return None;
    }
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = own.trim();
    if is_name(own) {
        return Some(own.to_owned());
    }
    let reason = format!(
        "missing, and the name of this host, {own:?}, can't be used: write one, as in host = \"web-17\""
    );
    report.add(section.line, "host", reason);
    None
}

fn seal(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<PathBuf>> {
    let before = report.problems.len();
    let files: Vec<_> = item
        .items(report)?
        .iter()
        .filter_map(|item| item.secret_path(report))
        .collect();
    if files.is_empty() && report.problems.len() == before {
        return item.wrong(
            report,
            "empty: name the file with the key of the group; `knock-user fleet key` makes it",
        );
    }
    (report.problems.len() == before).then_some(files)
}
