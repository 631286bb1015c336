//! Converts a stanza to a profile, with a comment for each directive that has no equivalent.

use super::rc::{Directive, RcStanza};
use crate::destination::can_be_host;
use knock_sequence::duration::spell;
use knock_sequence::spa::PublicKey;
use knock_sequence::terminal::{harmless, is_harmful};
use std::net::IpAddr;
use std::time::Duration;

/// The width of comments.
const COLUMNS: usize = 100;

/// The effect of directives of `fwknop` that do not become keys.
const REASONS: [(&[&str], &str); 8] = [
    (
        &[
            "KEY",
            "KEY_BASE64",
            "KEY_FILE",
            "USE_HMAC",
            "HMAC_KEY",
            "HMAC_KEY_BASE64",
            "HMAC_KEY_FILE",
            "HMAC_DIGEST_TYPE",
            "DIGEST_TYPE",
            "ENCRYPTION_MODE",
        ],
        "not needed: the key of this machine takes their place",
    ),
    (
        &[
            "USE_GPG",
            "USE_GPG_AGENT",
            "GPG_AGENT_INFO",
            "GPG_SIGNING_PW",
            "GPG_SIGNING_PW_BASE64",
            "GPG_NO_SIGNING_PW",
            "GPG_SIGNER",
            "GPG_RECIPIENT",
            "GPG_HOMEDIR",
            "GPG_EXE",
        ],
        "there is no GPG: the key of this machine takes its place",
    ),
    (
        &[
            "RESOLVE_IP_HTTP",
            "RESOLVE_IP_HTTPS",
            "RESOLVE_HTTP_ONLY",
            "RESOLVE_URL",
            "WGET_CMD",
            "HTTP_USER_AGENT",
            "USE_WGET_USER_AGENT",
        ],
        "no web service is asked for the address: a private IPv4 address is left to the host, which opens for the \
         address that the packet comes from",
    ),
    (
        &["SPOOF_USER"],
        "the host knows the user by the key: add the key to that [[user]] there",
    ),
    (
        &["NAT_ACCESS", "NAT_LOCAL", "NAT_PORT", "NAT_RAND_PORT"],
        "not available: a door opens ports of the host itself",
    ),
    (
        &["SPA_SOURCE_PORT", "SPOOF_SOURCE_IP", "RAND_PORT"],
        "not available: the packet has this machine's address, a source port that the system chooses, and a \
         destination port that the host names",
    ),
    (
        &["TIME_OFFSET"],
        "not available: set the clock of this machine",
    ),
    (
        &["VERBOSE", "NO_SAVE_ARGS"],
        "not needed: -v prints each step, and arguments are not saved",
    ),
];

/// Directives that are converted below.
const CONVERTED: [&str; 7] = [
    "SPA_SERVER",
    "SPA_SERVER_PORT",
    "SPA_SERVER_PROTO",
    "FW_TIMEOUT",
    "ALLOW_IP",
    "ACCESS",
    "SERVER_RESOLVE_IPV4",
];

/// Returns the name of a stanza's profile; `None` if it is not for a host.
pub(super) fn name(stanza: &RcStanza) -> Option<&str> {
    match (stanza.is_default(), stanza.last("SPA_SERVER")) {
        (true, host) => host.map(|host| host.value.as_str()),
        (false, _) => Some(&stanza.name),
    }
}

/// Returns the profile of a stanza with this name, as comments if the host's key is missing.
pub(super) fn of(stanza: &RcStanza, name: &str, key: Option<PublicKey>) -> String {
    let host = stanza.last("SPA_SERVER");
    let mut notes = Vec::new();
    let mut lines = Vec::new();
    match host {
        Some(host) if !can_be_host(&host.value) => notes.push(format!(
            "SPA_SERVER (line {}) is not a host: add host, unless {} is the host's name",
            host.line,
            quoted(name)
        )),
        Some(host) if host.value == name => {}
        Some(host) => lines.push(format!("host = {}", quoted(&host.value))),
        None => notes.push(format!(
            "it has no SPA_SERVER: add host, unless {} is the host's name",
            quoted(name)
        )),
    }
    lines.push(match key {
        Some(key) => format!("spa = \"{key}\""),
        None => {
            "spa = \"knock1:…\"  # the host's public key, which `knock-user keygen` prints there"
                .to_owned()
        }
    });
    if name.is_empty() || name.contains('/') {
        notes.push(format!(
            "{} can't be used as the name of a profile: choose another",
            quoted(name)
        ));
    }
    for directive in stanza
        .directives
        .iter()
        .filter(|directive| is_last(stanza, directive))
    {
        match key_of(directive) {
            DirectiveEffect::Line(line) => lines.push(line),
            DirectiveEffect::Note(note) => notes.push(place(directive, &note)),
            DirectiveEffect::Both(line, note) => {
                lines.push(line);
                notes.push(place(directive, &note));
            }
            DirectiveEffect::Nothing => {}
        }
    }
    for (names, reason) in REASONS {
        let found = stanza
            .directives
            .iter()
            .filter(|directive| names.contains(&directive.name.as_str()));
        let found: Vec<String> = found
            .map(|directive| format!("{} (line {})", directive.name, directive.line))
            .collect();
        if !found.is_empty() {
            notes.push(format!("{}: {reason}", found.join(", ")));
        }
    }
    let is_known = |name: &str| {
        CONVERTED.contains(&name) || REASONS.iter().any(|(names, _)| names.contains(&name))
    };
    let unknown = stanza
        .directives
        .iter()
        .filter(|directive| !is_known(&directive.name));
    // The text may be a part of a key.
    let mut unknown: Vec<usize> = unknown.map(|directive| directive.line).collect();
    unknown.extend(&stanza.invalid);
    unknown.sort_unstable();
    notes.extend(
        unknown
            .iter()
            .map(|line| format!("line {line} is not a directive of fwknop 2.6.10")),
    );

    let mut text = comment(&format!("[{}]", stanza.name));
    notes
        .iter()
        .for_each(|note| text += &comment(&format!("- {note}")));
    let profile = format!("[profile.{}]\n{}\n", quoted_key(name), lines.join("\n"));
    text += &match key {
        Some(_) => profile,
        None => profile.lines().map(|line| format!("# {line}\n")).collect(),
    };
    text
}

/// Returns whether no later directive has the same name.
fn is_last(stanza: &RcStanza, directive: &Directive) -> bool {
    stanza
        .last(&directive.name)
        .is_some_and(|last| last.line == directive.line)
}

fn place(directive: &Directive, note: &str) -> String {
    format!("{} (line {}): {note}", directive.name, directive.line)
}

/// The effect of a directive.
enum DirectiveEffect {
    Line(String),
    Note(String),
    Both(String, String),
    Nothing,
}

fn key_of(directive: &Directive) -> DirectiveEffect {
    let value = directive.value.as_str();
    match directive.name.as_str() {
        "SPA_SERVER_PORT" => match value.parse::<u16>() {
            Ok(port) if port > 0 => DirectiveEffect::Both(
                format!("port = \"udp/{port}\""),
                "the host takes packets at the ports in its [spa]; the default of both is udp/62201".to_owned(),
            ),
            _ => DirectiveEffect::Note("it is not a port from 1 to 65535: add port = \"udp/…\"".to_owned()),
        },
        "SPA_SERVER_PROTO" if value.eq_ignore_ascii_case("udp") => DirectiveEffect::Nothing,
        "SPA_SERVER_PROTO" => {
            DirectiveEffect::Note("packets are sent over UDP only: the host needs a UDP port in its [spa]".to_owned())
        }
        "FW_TIMEOUT" => match value.parse::<u32>() {
            Ok(seconds) if seconds > 0 => DirectiveEffect::Both(
                format!("for = \"{}\"", spell(Duration::from_secs(seconds.into()))),
                "the host gives at most the open_for_max of the door".to_owned(),
            ),
            _ => DirectiveEffect::Note("it is not a number of seconds, so the time is left to the host".to_owned()),
        },
        "ALLOW_IP" if value.eq_ignore_ascii_case("source") => DirectiveEffect::Line("source = \"::\"".to_owned()),
        "ALLOW_IP" if value.eq_ignore_ascii_case("resolve") => DirectiveEffect::Note(
            "no web service is asked: a public address is written into the packet, and a private IPv4 address \
             left to the host"
                .to_owned(),
        ),
        "ALLOW_IP" => match value.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => DirectiveEffect::Line("source = \"::\"".to_owned()),
            Ok(address) => DirectiveEffect::Both(
                format!("source = \"{address}\""),
                "if the packet comes from another address, the host needs for_others = true for the user; \
                 without this line, this machine's own address is used"
                    .to_owned(),
            ),
            Err(_) => DirectiveEffect::Note("a name can't be used: add source with the address, or leave it out".to_owned()),
        },
        "ACCESS" => DirectiveEffect::Note(format!(
            "{}: the door on the host decides which ports open; add door with its name, unless it is the first of \
             your doors",
            value.escape_debug()
        )),
        "SERVER_RESOLVE_IPV4" if value.eq_ignore_ascii_case("y") => DirectiveEffect::Line("family = \"ipv4\"".to_owned()),
        _ => DirectiveEffect::Nothing,
    }
}

/// Writes a text as wrapped comments.
pub(super) fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split(' ') {
        let word = harmless(word);
        match lines.last_mut() {
            Some(line)
                if line.len() == 1 || line.chars().count() + word.chars().count() < COLUMNS =>
            {
                line.push(' ');
                line.push_str(&word);
            }
            Some(_) | None => lines.push(format!("#   {word}")),
        }
    }
    lines.join("\n") + "\n"
}

/// Writes a string of TOML that is harmless for a terminal.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|character| match character {
        '"' | '\\' => format!("\\{character}"),
        character if is_harmful(character) => format!("\\u{:04X}", u32::from(character)),
        character => character.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// Writes a key of a table: bare if it can be.
fn quoted_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => quoted(name),
    }
}
