//! `knock-user check`: prints warnings about a configuration and its meaning.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Context as _, Result};

use knock_common::GrantPrefix;
use knock_sequence::{Ports, duration::spell, one_time::OneTimeText};

use crate::{
    apply::own_session::{self, Impact},
    config::{self, Checked, named_files, one_time_lines::OneTimeCheck},
    host::{Host, interface},
    interfaces::{
        admission,
        coverage::{self, CoverageState},
        guards,
    },
    kernel::{
        instance::Instance,
        pins::{self, Pinned},
        tcx,
    },
    model::{
        attach_mode::AttachMode,
        fleet::Alone,
        settings::{Door, Dynamic, Effect, OneTime, Settings, User, Verify},
        spa::{HostKeyPairs, UserKey},
        table_sizes,
    },
    sequences::{one_time, state_directory},
    strength::{Strength, View},
};

/// Prints a file's warnings on this host, and its meaning.
///
/// # Errors
/// Returns [`config::Problems`] if the file has errors or no effect, or an error if something else
/// fails.
pub fn run(path: &Path, out: &mut impl Write) -> Result<()> {
    let checked = match config::read(path) {
        Ok(checked) => checked,
        Err(problems) => {
            // The text of a pipe can't be read a second time.
            if path.is_file() {
                for warning in named_files::warnings_despite_errors(path) {
                    writeln!(out, "{}", warning.render_in("warning", &problems.file))
                        .context("writing the result")?;
                }
            }
            return Err(problems.into());
        }
    };
    let mut host = Host::inspect().context("asking the kernel what this host serves")?;
    guards::note(&mut host.links);
    write_report(&checked, &host, out).context("writing the result")?;
    checked.has_effect()?;
    Ok(())
}

fn write_report(checked: &Checked, host: &Host, out: &mut impl Write) -> io::Result<()> {
    if checked.settings.interfaces.is_empty() {
        let reason = "not set: start knock-user with --iface, or write interfaces = [\"eth0\"]; \
                      the systemd unit passes no --iface and fails without it";
        for problem in checked.problem("interfaces", reason).list {
            writeln!(out, "{}", problem.render_in("warning", &checked.file))?;
        }
    }
    for warning in interfaces(&checked.settings) {
        for problem in checked.problem("interfaces", warning).list {
            writeln!(out, "{}", problem.render_in("warning", &checked.file))?;
        }
    }
    for warning in checked.surroundings(host, &checked.settings.interfaces) {
        writeln!(out, "{}", warning.render_in("warning", &checked.file))?;
    }
    let session = own_session::own();
    let impact = session.map(|session| own_session::impact(session, &checked.settings));
    if let Some(impact @ Impact::Blocked(..)) = &impact {
        for problem in checked
            .problem("block", impact.warning().unwrap_or_default())
            .list
        {
            writeln!(out, "{}", problem.render_in("warning", &checked.file))?;
        }
    }
    for warning in checked.file_warnings_of_service() {
        writeln!(out, "{}", warning.render_in("warning", &checked.file))?;
    }
    let doors = &checked.settings.doors;
    let records = checked.settings.spa().is_some()
        || doors
            .iter()
            .any(|door| matches!(door.dynamic, Some(Dynamic::Otp(_))));
    if let Some(obstacle) = state_directory::obstacle().filter(|_| records) {
        for problem in checked.problem("", obstacle).list {
            writeln!(out, "{}", problem.render_in("warning", &checked.file))?;
        }
    }
    check(checked, host, out)?;
    let settings = &checked.settings;
    let memory = table_sizes::described(&settings.limits, settings.uses(), host.memory);
    writeln!(out, "tables: {memory}")?;
    if let Some(note) = checked.unserved(host) {
        writeln!(out, "{}", note.render_in("note", &checked.file))?;
    }
    for note in modes(&checked.settings) {
        for problem in checked.problem("mode", note).list {
            writeln!(out, "{}", problem.render_in("note", &checked.file))?;
        }
    }
    Ok(())
}

/// Returns a note for each interface of the file on which `auto` does not try the driver first.
fn modes(settings: &Settings) -> Vec<String> {
    let Ok(all) = interface::list() else {
        return Vec::new();
    };
    let links = links(&settings.interfaces);
    let note = |name: &String| {
        let found = interface::named(name, &all)?;
        let ours = pins::mode(&links, found);
        let ways = admission::admit(found, &all, settings.mode, ours).ok()?;
        let way = ways.list.first()?;
        let because = way.because.as_ref()?;
        let otherwise = match (way.mode, tcx::is_available()) {
            (AttachMode::Tc, None) => " (skb before Linux 6.6)",
            (AttachMode::Native | AttachMode::Generic | AttachMode::Tc, _) => "",
        };
        Some(format!(
            "`auto` takes {}{otherwise} on {name} because {because}",
            way.mode.name()
        ))
    };
    settings.interfaces.iter().filter_map(note).collect()
}

/// Returns a warning for each interface of the file that does not exist or can't be protected.
fn interfaces(settings: &Settings) -> Vec<String> {
    let names = &settings.interfaces;
    let Ok(all) = interface::list() else {
        return Vec::new();
    };
    let links = links(names);
    let covered = coverage::among(names, settings.mode, &links, &all).into_iter();
    let reasons = covered.filter_map(|coverage| match coverage.state {
        CoverageState::Absent => {
            let there: Vec<&str> = all.iter().map(|there| there.name.as_str()).collect();
            Some(format!(
                "there is no interface {} now; this host has {}",
                coverage.name,
                there.join(", ")
            ))
        }
        CoverageState::Refused(refusal) => Some(refusal.to_string()),
        CoverageState::Protected { .. }
        | CoverageState::Bypassed { .. }
        | CoverageState::Blocked
        | CoverageState::Missing => None,
    });
    reasons.collect()
}

/// Returns the links of the instance that protects these interfaces; none without access to its pins, where they can't
/// be distinguished from those of others.
fn links(names: &[String]) -> Vec<Pinned> {
    let instance = Instance::protecting(names).ok().flatten();
    let links = instance.and_then(|instance| pins::links(&instance).ok());
    links.unwrap_or_default()
}

/// Prints the warnings of a configuration on a host, and its meaning.
///
/// # Errors
/// Returns an error if the text can't be written.
pub fn check(checked: &Checked, host: &Host, out: &mut impl Write) -> io::Result<()> {
    for warning in checked
        .warnings(host)
        .into_iter()
        .chain(checked.file_warnings())
    {
        writeln!(out, "{}", warning.render_in("warning", &checked.file))?;
    }
    describe(&checked.settings, out)
}

fn describe(settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let books: Vec<Option<OneTimeText>> = settings
        .doors
        .iter()
        .map(|door| one_time_text(settings, door))
        .collect();
    let view = view(settings, &books);
    for (door, one_time_text) in settings.doors.iter().zip(&books) {
        let one_time_text = one_time_text.as_ref();
        writeln!(out, "door {}", door.name)?;
        if door.has_sequence() {
            writeln!(out, "  knock    {}", sequence(door, one_time_text))?;
            writeln!(out, "  timeout  {}", time_limits(door))?;
        }
        let users: Vec<_> = settings
            .users_of(door)
            .map(|user| user.name.as_str())
            .collect();
        if !users.is_empty() {
            writeln!(out, "  users    {}", users.join(" "))?;
        }
        writeln!(out, "  effect   {}", effect(door, !users.is_empty()))?;
        if let Some(target) = door.target {
            writeln!(out, "  target   {target}")?;
        }
        if let Some(fleet) = settings.fleet.as_ref().filter(|_| settings.is_shared(door)) {
            writeln!(
                out,
                "  group    {}: its hosts open it together",
                fleet.group
            )?;
        }
        if let Some(strength) = strength(door, one_time_text, &view) {
            writeln!(out, "  guessing {}", strength.blind())?;
            writeln!(out, "  scanned  {}", strength.scanned)?;
        }
    }
    for user in &settings.users {
        writeln!(out, "user {}", user.name)?;
        for key in &user.keys {
            writeln!(out, "  key      {}", described(user, key))?;
        }
        if let Some(fwknop) = &user.fwknop {
            let sources = match fwknop.source.as_slice() {
                [] => String::new(),
                sources => format!(" from {}", words(sources)),
            };
            writeln!(out, "  fwknop   {}{sources}", fwknop.file.display())?;
        }
        let doors = match user.doors.as_slice() {
            [] => "none".to_owned(),
            doors => doors.join(" "),
        };
        writeln!(out, "  doors    {doors}")?;
    }
    if let Some(spa) = settings.spa() {
        writeln!(out, "SPA packets: {}", words(&spa.ports))?;
        if let Some(HostKeyPairs { key, .. }) = spa.host_keys.first() {
            writeln!(out, "host key: {}", key.public())?;
        }
    }
    let protected: Vec<Ports> = settings.protected().ranges();
    let closed = match protected.as_slice() {
        [] => "nothing".to_owned(),
        ports => words(ports),
    };
    writeln!(out, "protected: {closed}")?;
    if let Some(next_line) = settings.next_line {
        writeln!(
            out,
            "next_line: every client may ask {next_line} which line of a one_time file is next"
        )?;
    }
    if let Some(metrics) = settings.metrics {
        writeln!(out, "metrics: http://{metrics}/metrics")?;
    }
    if let Some(fleet) = &settings.fleet {
        let alone = match fleet.alone {
            Alone::Closed => "no knock opens a door of the group",
            Alone::Local => "knocks open here alone",
        };
        writeln!(
            out,
            "fleet: host {} of the group {}, through {}; cut off for {}, {alone}",
            fleet.host,
            fleet.group,
            fleet.servers.join(" "),
            spell(fleet.grace)
        )?;
    }
    if !settings.trust.is_empty() {
        writeln!(out, "without knocking: {}", words(&settings.trust))?;
    }
    Ok(())
}

/// Reads the one-time file of a door, if possible.
fn one_time_text(settings: &Settings, door: &Door) -> Option<OneTimeText> {
    let Some(Dynamic::OneTime(OneTime { file, .. })) = &door.dynamic else {
        return None;
    };
    let mut lines = OneTimeCheck::new(settings, door);
    one_time::inspect(file, |knocks| lines.refuse(knocks)).ok()
}

/// Describes the sequence of a door.
fn sequence(door: &Door, one_time_text: Option<&OneTimeText>) -> String {
    let OneTime { file, lookahead } = match &door.dynamic {
        None => return words(&door.knock),
        Some(Dynamic::Otp(_)) => {
            return "a new sequence in each period, derived from a secret".to_owned();
        }
        Some(Dynamic::OneTime(one_time)) => one_time,
    };
    let lines = one_time_text.map_or("none can be read".to_owned(), |one_time_text| {
        let next = one_time_text.unused().take((*lookahead).into());
        let next: Vec<String> = next.map(|(line, _)| line.to_string()).collect();
        let left = one_time_text.unused().count();
        match next.as_slice() {
            [] => "none is left".to_owned(),
            [only] => format!("{left} left, line {only} opens"),
            many => format!("{left} left, any of lines {} opens", many.join(", ")),
        }
    });
    format!("one-time sequences of {}: {lines}", file.display())
}

/// Returns the strength of the door's weakest sequence.
fn strength(door: &Door, one_time_text: Option<&OneTimeText>, view: &View) -> Option<Strength> {
    let weakest = |one_time_text: &OneTimeText| {
        let all = one_time_text
            .unused()
            .map(|(_, knocks)| Strength::of(door, knocks, view));
        all.min_by(|a, b| a.bits.total_cmp(&b.bits))
    };
    match &door.dynamic {
        None if door.knock.is_empty() => None,
        None => Some(Strength::of(door, &door.knock, view)),
        Some(Dynamic::Otp(_)) => Strength::timed(door),
        Some(Dynamic::OneTime(_)) => weakest(one_time_text?),
    }
}

/// Returns what a scan of the host shows; `books` are the one-time files of the doors.
fn view(settings: &Settings, books: &[Option<OneTimeText>]) -> View {
    let lines = settings
        .doors
        .iter()
        .zip(books)
        .flat_map(|(door, one_time_text)| {
            let lookahead = match &door.dynamic {
                Some(Dynamic::OneTime(one_time)) => one_time.lookahead.into(),
                Some(Dynamic::Otp(_)) | None => 0,
            };
            let next = one_time_text
                .iter()
                .flat_map(move |one_time_text| one_time_text.unused().take(lookahead));
            next.flat_map(move |(_, knocks)| knocks.iter().map(move |&knock| (door, knock)))
        });
    View::of(settings, lines)
}

fn time_limits(door: &Door) -> String {
    let step = door
        .step_timeout
        .map(|step| format!(", {} from knock to knock", spell(step)));
    let proof = match door.verify {
        Verify::Packet => "",
        Verify::Handshake => ", each verified with a handshake",
    };
    spell(door.sequence_timeout) + &step.unwrap_or_default() + proof
}

/// Describes a key of a user: the key, its note and its end.
fn described(user: &User, key: &UserKey) -> String {
    let note = match key.note.as_str() {
        "" => String::new(),
        note => format!(" ({note})"),
    };
    let until = user.end_of(key).map(|until| format!(" until {until}"));
    format!("{}{note}{}", key.key, until.unwrap_or_default())
}

fn effect(door: &Door, has_users: bool) -> String {
    let mut effects = Vec::new();
    match &door.effect {
        Effect::Open(ports) if ports.is_empty() => {}
        Effect::Open(ports) => {
            let most = match has_users && door.open_for_max > door.open_for {
                true => format!(", users for up to {}", spell(door.open_for_max)),
                false => String::new(),
            };
            effects.push(format!(
                "opens {} for {}{most}{}",
                words(ports),
                spell(door.open_for),
                width(door.grant_prefix)
            ));
        }
        Effect::Close(ports) => effects.push(format!("closes {}", words(ports))),
    }
    for (command, when) in [(&door.on_open, "runs"), (&door.on_close, "at the end runs")] {
        if let Some(command) = command {
            effects.push(format!("{when} {}", command.program.display()));
        }
    }
    if let Some(port) = door.first_tcp().filter(|_| door.reply) {
        effects.push(format!("replies to the client with tcp/{port}"));
    }
    effects.join(", ")
}

/// Returns what grants cover besides the source.
fn width(prefix: GrantPrefix) -> String {
    let families = [
        (prefix.ipv4(), GrantPrefix::SINGLE.ipv4(), "IPv4"),
        (prefix.ipv6(), GrantPrefix::SINGLE.ipv6(), "IPv6"),
    ];
    let wide = families
        .into_iter()
        .filter(|(bits, single, _)| bits < single);
    let wide: Vec<_> = wide
        .map(|(bits, _, family)| format!("{family} /{bits}"))
        .collect();
    match wide.as_slice() {
        [] => String::new(),
        _ => format!(", for the source's whole {}", wide.join(" or ")),
    }
}

fn words<T: ToString>(things: &[T]) -> String {
    let words: Vec<String> = things.iter().map(T::to_string).collect();
    words.join(" ")
}
