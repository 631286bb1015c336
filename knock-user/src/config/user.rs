//! Reads a `[[user]]`.

use knock_sequence::spa::PublicKey;

use super::{
    door,
    section::{Section, TomlItem},
};
use crate::model::{
    problem::ProblemReport,
    settings::Prefix,
    spa::{Fwknop, User, UserKey},
};

pub(super) const KEYS: &[&str] = &[
    "name",
    "keys",
    "fwknop",
    "doors",
    "until",
    "bind",
    "for_others",
    "source",
    "username",
];

const KEY_KEYS: &[&str] = &["key", "until", "note"];

/// The longest user name of fwknop (`MAX_SPA_USERNAME_SIZE`).
const USERNAME_MOST: usize = 64;
/// The longest note of a key, in characters: it appears in lines of a terminal.
const NOTE_MOST: usize = 100;

/// Reads a user, and the lines of its keys; `None` if it could not be read in full, which is reported.
pub(super) fn read(
    section: &mut Section<'_, '_>,
    report: &mut ProblemReport,
) -> Option<(User, Vec<usize>)> {
    let before = report.problems.len();
    let name = section.get("name", report, door::name);
    if section.lacks("name") {
        report.add(
            section.line,
            "name",
            "missing: every user needs one, as in name = \"alice\"",
        );
    }
    let keys = section.or("keys", report, Vec::new(), keys);
    let fwknop = fwknop(section, report);
    if section.lacks("keys") && section.lacks("fwknop") {
        report.add(
            section.line,
            "keys",
            "missing: add the public keys that `knock-client keygen` prints, as in keys = \
             [\"knock1:...\"], or name the file with the keys of a fwknop client with fwknop",
        );
    }
    let doors = section.or("doors", report, Vec::new(), doors);
    let until = section.get("until", report, TomlItem::until);
    let bind = section.get("bind", report, TomlItem::boolean);
    let for_others = section.or("for_others", report, false, TomlItem::boolean);
    (report.problems.len() == before).then_some(())?;
    let (lines, keys) = keys.into_iter().unzip();
    let user = User {
        name: name?,
        keys,
        doors,
        until,
        bind,
        for_others,
        fwknop,
    };
    Some((user, lines))
}

/// Reads `fwknop`, `source` and `username`, which belong together.
fn fwknop(section: &mut Section<'_, '_>, report: &mut ProblemReport) -> Option<Fwknop> {
    let file = section.get("fwknop", report, TomlItem::secret_path);
    let source = section.or("source", report, Vec::new(), |item, report| {
        item.list(report, str::parse::<Prefix>)
    });
    let username = section.get("username", report, username);
    if section.lacks("fwknop") {
        for (key, is_given) in [
            ("source", !section.lacks("source")),
            ("username", !section.lacks("username")),
        ] {
            if is_given {
                let line = section.lines.get(key).copied();
                let reason = "only a user with fwknop has it: remove it";
                report.add(line.unwrap_or(section.line), key, reason);
            }
        }
    }
    Some(Fwknop {
        file: file?,
        username,
        source,
        keys: None,
    })
}

fn username(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<String> {
    let name = item.text(report)?;
    let fits = |c: char| c.is_ascii_graphic();
    if name.is_empty() || name.len() > USERNAME_MOST || !name.chars().all(fits) {
        let reason =
            format!("{name:?} is not a user name of fwknop: write 1 to {USERNAME_MOST} letters");
        return item.wrong(report, reason);
    }
    Some(name.to_owned())
}

fn keys(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<(usize, UserKey)>> {
    let before = report.problems.len();
    let items = item.items(report)?;
    let keys: Vec<_> = items
        .iter()
        .filter_map(|item| {
            let key = match item.is_text() {
                true => public(item, report).map(|key| UserKey {
                    key,
                    until: None,
                    note: String::new(),
                }),
                false => table(item, report),
            };
            Some((item.line, key?))
        })
        .collect();
    if items.is_empty() && report.problems.len() == before {
        return item.wrong(
            report,
            "empty: add the public keys that `knock-client keygen` prints, or remove the user",
        );
    }
    Some(keys)
}

/// Reads `{ key = "...", until = 2027-01-31, note = "old phone" }`.
fn table(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<UserKey> {
    let mut section = item.section("a key", KEY_KEYS, report)?;
    let key = section.get("key", report, public);
    if section.lacks("key") {
        report.add(
            section.line,
            "key",
            "missing: add the public key that `knock-client keygen` prints, as in key = \
             \"knock1:...\"",
        );
    }
    Some(UserKey {
        key: key?,
        until: section.get("until", report, TomlItem::until),
        note: section.get("note", report, note).unwrap_or_default(),
    })
}

fn public(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<PublicKey> {
    item.parsed(report, str::parse)
}

fn note(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<String> {
    let note = item.text(report)?;
    if note.chars().count() > NOTE_MOST || note.contains(char::is_control) {
        let reason = format!("write one line of at most {NOTE_MOST} characters");
        return item.wrong(report, reason);
    }
    Some(note.to_owned())
}

fn doors(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<String>> {
    let names = item.list(report, |name| Ok::<_, String>(name.to_owned()))?;
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|other| other == name) {
            return item.wrong(report, format!("{name:?} is listed twice: remove one"));
        }
    }
    Some(names)
}
