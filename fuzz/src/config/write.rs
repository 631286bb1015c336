//! Settings as a configuration, every key written out.

use std::{fmt::Display, time::Duration};

use knock_common::packet::Protocol;
use knock_sequence::duration;
use knock_user::model::{
    fleet::Fleet,
    settings::{
        Command, Decoys, Door, Dynamic, Effect, Exempt, Mode, Otp, Scope, SecretOrigin, Settings,
        User,
    },
    table_sizes::SizedTable,
    value,
};

/// Returns the text of settings.
pub(super) fn settings(settings: &Settings) -> String {
    let mode = match settings.mode {
        Mode::Auto => "auto",
        Mode::Native => "native",
        Mode::Skb => "skb",
        Mode::Tc => "tc",
    };
    let mut text = Text::default();
    text.list("interfaces", &settings.interfaces);
    text.string("mode", mode);
    text.list("protect", &settings.protect);
    text.list("trust", &settings.trust);
    text.raw("strict", settings.strict);
    match &settings.exempt {
        Exempt::Listening => text.string("exempt", "listening"),
        Exempt::Listed(ports) => text.list("exempt", ports),
    }
    text.table("[established]");
    text.raw("keep", settings.established.keep);
    text.duration("idle", settings.established.idle);
    text.duration("idle_udp", settings.established.idle_udp);
    if !settings.block.is_empty() {
        text.table("[block]");
        text.list("prefixes", &settings.block);
    }
    if let Some(lockout) = settings.lockout {
        text.table("[lockout]");
        text.raw("failures", lockout.failures);
        text.duration("for", lockout.duration);
        let scope = match lockout.scope {
            Scope::Source => "source",
            Scope::Global => "global",
        };
        text.string("scope", scope);
    }
    text.table("[limits]");
    if let Some(octets) = settings.limits.memory {
        text.string("memory", &memory(octets));
    }
    for table in SizedTable::ALL {
        match settings.limits.get(table) {
            Some(size) if table == SizedTable::Events => {
                text.string(table.key(), &memory(size.into()));
            }
            Some(size) => text.raw(table.key(), size),
            None => {}
        }
    }
    text.table("[decoys]");
    match &settings.decoys {
        Decoys::Drawn { count, range } => {
            text.raw("count", count);
            text.string("range", &format!("{}-{}", range.start(), range.end()));
        }
        Decoys::Listed(ports) => text.list("ports", ports),
    }
    text.table("[control]");
    if let Some(group) = &settings.control.group {
        text.string("group", group);
    }
    if let Some(index) = settings.next_line {
        text.table("[next_line]");
        text.string("listen", &index.to_string());
    }
    if let Some(one) = &settings.fleet {
        fleet(&mut text, one);
    }
    if let Some(spa) = &settings.spa {
        text.table("[spa]");
        text.list("ports", &spa.ports);
        text.string("key", &spa.key.to_string_lossy());
        if let Some(old_key) = &spa.old_key {
            text.string("old_key", &old_key.to_string_lossy());
        }
        text.duration("window", spa.window);
        text.string("otherwise", spa.otherwise.name());
        text.raw("bind", spa.bind);
    }
    for one in &settings.users {
        user(&mut text, one);
    }
    for one in &settings.doors {
        door(&mut text, one);
    }
    text.0
}

fn fleet(text: &mut Text, fleet: &Fleet) {
    text.table("[fleet]");
    text.list("servers", &fleet.servers);
    text.string("group", &fleet.group);
    text.string("host", &fleet.host);
    for (key, file) in [
        ("ca", &fleet.ca),
        ("cert", &fleet.cert),
        ("key", &fleet.key),
    ] {
        if let Some(file) = file {
            text.string(key, &file.to_string_lossy());
        }
    }
    let seal: Vec<_> = fleet
        .seal
        .iter()
        .map(|file| file.to_string_lossy())
        .collect();
    text.list("seal", &seal);
    text.string("alone", fleet.alone.name());
    text.duration("grace", fleet.grace);
    text.duration("longest", fleet.longest);
    text.raw("watches", fleet.watches);
}

/// Returns an amount that was read, which is a multiple of a kB or a KiB.
fn memory(octets: u64) -> String {
    match octets % 1_000 {
        0 => format!("{}kB", octets / 1_000),
        _ => format!("{}KiB", octets / 1_024),
    }
}

fn user(text: &mut Text, user: &User) {
    text.table("[[user]]");
    text.string("name", &user.name);
    let keys = user.keys.iter().map(|key| {
        let until = key.until.map(|until| format!(", until = {until}"));
        format!(
            "{{ key = {}, note = {}{} }}",
            quoted(&key.key.to_string()),
            quoted(&key.note),
            until.unwrap_or_default()
        )
    });
    if !user.keys.is_empty() {
        text.raw("keys", format!("[{}]", keys.collect::<Vec<_>>().join(", ")));
    }
    text.list("doors", &user.doors);
    if let Some(fwknop) = &user.fwknop {
        text.string("fwknop", &fwknop.file.to_string_lossy());
        text.list("source", &fwknop.source);
        if let Some(username) = &fwknop.username {
            text.string("username", username);
        }
    }
    if let Some(until) = user.until {
        text.raw("until", until);
    }
    if let Some(bind) = user.bind {
        text.raw("bind", bind);
    }
    text.raw("for_others", user.for_others);
}

fn door(text: &mut Text, door: &Door) {
    text.table("[[door]]");
    text.string("name", &door.name);
    match &door.dynamic {
        None if door.knock.is_empty() => {}
        None => text.list("knock", &door.knock),
        Some(Dynamic::OneTime(one_time)) => {
            text.string("one_time", &one_time.file.to_string_lossy());
            text.raw("lookahead", one_time.lookahead);
        }
        Some(Dynamic::Otp(otp)) => text.raw("otp", self::otp(otp)),
    }
    match &door.effect {
        Effect::Open(ports) => {
            text.list("open", ports);
            text.duration("open_for", door.open_for);
            text.duration("open_for_max", door.open_for_max);
            let prefix = door.grant_prefix;
            let (ipv4, ipv6) = (prefix.ipv4(), prefix.ipv6());
            text.raw(
                "grant_prefix",
                format!("{{ ipv4 = {ipv4}, ipv6 = {ipv6} }}"),
            );
        }
        Effect::Close(ports) => text.list("close", ports),
    }
    if door.has_sequence() {
        knocks(text, door);
    }
    for (key, command) in [("on_open", &door.on_open), ("on_close", &door.on_close)] {
        if let Some(command) = command {
            text.list(key, &words(command));
        }
    }
    if let Some(command) = door.on_open.as_ref().or(door.on_close.as_ref()) {
        text.duration("command_timeout", command.timeout);
    }
    if let Some(target) = door.target {
        text.string("target", &target.to_string());
    }
    if !door.from.is_empty() {
        text.list("from", &door.from);
    }
}

/// Writes the keys that only doors with a sequence have.
fn knocks(text: &mut Text, door: &Door) {
    text.duration("sequence_timeout", door.sequence_timeout);
    if let Some(step) = door.step_timeout {
        text.duration("step_timeout", step);
    }
    text.string("tcp_flags", &value::spell_flags(door.tcp_flags));
    text.string("verify", door.verify.name());
    text.raw("reply", door.reply);
    text.raw("knock_pass", door.knock_pass);
}

fn words(command: &Command) -> Vec<String> {
    let program = command.program.to_string_lossy().into_owned();
    let mut words = vec![program];
    words.extend(command.arguments.iter().cloned());
    words
}

fn otp(otp: &Otp) -> String {
    let (key, place) = match &otp.origin {
        SecretOrigin::Written => ("secret", secret(otp)),
        SecretOrigin::File(path) => ("secret_file", path.to_string_lossy().into_owned()),
        SecretOrigin::Environment => panic!("no such variable is set"),
    };
    let protocols: Vec<&str> = otp
        .sequences
        .protocols
        .iter()
        .copied()
        .map(Protocol::name)
        .collect();
    format!(
        "{{ {key} = {}, period = \"{}s\", port_base = {}, protocols = {}, bind_source = {}, skew = {} }}",
        quoted(&place),
        otp.sequences.period.as_secs(),
        otp.sequences.base,
        list(&protocols),
        otp.sequences.bind_source,
        otp.skew
    )
}

/// Returns the text of a secret that was written in the file, so it is a text.
fn secret(otp: &Otp) -> String {
    let bytes = bytemuck::bytes_of(&otp.sequences.secret);
    let bytes = &bytes[..otp.sequences.secret.length()];
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn table(&mut self, header: &str) {
        self.0 += &format!("\n{header}\n");
    }

    fn raw(&mut self, key: &str, value: impl Display) {
        self.0 += &format!("{key} = {value}\n");
    }

    fn string(&mut self, key: &str, value: &str) {
        self.raw(key, quoted(value));
    }

    fn list<T: Display>(&mut self, key: &str, items: &[T]) {
        self.raw(key, list(items));
    }

    fn duration(&mut self, key: &str, duration: Duration) {
        self.string(key, &duration::spell(duration));
    }
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// Returns a basic string, as JSON has it: TOML takes the same escapes.
fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    // The one control character that JSON does not escape.
    quoted.replace('\u{7f}', "\\u007f")
}
