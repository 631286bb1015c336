//! Reads a `[[door]]`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use knock_common::{
    GrantPrefix,
    layout::{FlagClass, KNOCKS_MAX},
};
use knock_sequence::{Knock, Ports, duration};

use super::{
    grant_prefix, otp,
    section::{Section, TomlItem},
};
use crate::model::{
    problem::ProblemReport,
    settings::{Command, Door, Dynamic, Effect, OneTime, Prefix, Verify},
    value,
};

pub(super) const KEYS: &[&str] = &[
    "name",
    "knock",
    "open",
    "close",
    "open_for",
    "open_for_max",
    "grant_prefix",
    "sequence_timeout",
    "step_timeout",
    "tcp_flags",
    "on_open",
    "on_close",
    "command_timeout",
    "target",
    "one_time",
    "lookahead",
    "otp",
    "verify",
    "reply",
    "knock_pass",
    "from",
    "group",
];

/// The default length of a grant.
const OPEN_FOR: Duration = Duration::from_secs(30);
/// The default time from the first knock to the last.
const SEQUENCE_TIMEOUT: Duration = Duration::from_secs(25);
/// The default time limit of a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The default number of one-time sequences that are accepted at a time.
const LOOKAHEAD: u16 = 1;
/// More would make guessing too easy.
const LOOKAHEAD_MOST: u16 = 64;

/// A month; a port that should be open for longer needs no door.
const OPEN_FOR_MOST: Duration = Duration::from_secs(30 * 86_400);
/// Packets may need longer than anything below.
const SEQUENCE_TIMEOUT_LEAST: Duration = Duration::from_millis(100);
/// The kernel side counts an attempt's time in 20 bits of 4.19 ms: 73 minutes.
pub(crate) const SEQUENCE_TIMEOUT_MOST: Duration = Duration::from_secs(30 * 60);
/// A few of the kernel side's ticks.
const STEP_LEAST: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const NAME_MOST: usize = 64;

/// Reads a door; `None` if it could not be read in full, which is reported.
pub(super) fn read(section: &mut Section<'_, '_>, report: &mut ProblemReport) -> Option<Door> {
    let before = report.problems.len();
    let name = section.get("name", report, name);
    if section.lacks("name") {
        report.add(
            section.line,
            "name",
            "missing: every door needs one, as in name = \"ssh\"",
        );
    }
    let sequence_timeout = section.or(
        "sequence_timeout",
        report,
        SEQUENCE_TIMEOUT,
        |item, report| item.duration(report, SEQUENCE_TIMEOUT_LEAST, SEQUENCE_TIMEOUT_MOST),
    );
    let dynamic = dynamic(section, sequence_timeout, report);
    let knock = section.get("knock", report, knocks);
    let sources = ["knock", "one_time", "otp"];
    match sources.iter().filter(|key| !section.lacks(key)).count() {
        // A door that a user may open needs none, which is known once the whole file is read.
        0 | 1 => {}
        _ => report.add(
            section.line,
            "knock",
            "a door has exactly one of knock, one_time and otp: remove the others, or define \
             more doors",
        ),
    }
    let timeout = section.or(
        "command_timeout",
        report,
        COMMAND_TIMEOUT,
        |item, report| item.duration(report, SECOND, HOUR),
    );
    let on_open = section.get("on_open", report, |item, report| {
        command(item, timeout, report)
    });
    let on_close = section.get("on_close", report, |item, report| {
        command(item, timeout, report)
    });
    let effect = effect(section, report);
    let open_for = section.or("open_for", report, OPEN_FOR, |item, report| {
        item.duration(report, SECOND, OPEN_FOR_MOST)
    });
    let open_for_max = section.get("open_for_max", report, |item, report| {
        open_for_max(item, open_for, report)
    });
    let grant_prefix = section.or(
        "grant_prefix",
        report,
        GrantPrefix::SINGLE,
        grant_prefix::read,
    );
    let step_timeout = section.get("step_timeout", report, |item, report| {
        step_timeout(item, sequence_timeout, report)
    });
    let tcp_flags = section.or("tcp_flags", report, FlagClass::SYN, |item, report| {
        item.parsed(report, value::tcp_flags)
    });
    let target = section.get("target", report, target);
    let verify = section.or("verify", report, Verify::Packet, |item, report| {
        item.word(report, &Verify::WORDS)
    });
    let reply = section.or("reply", report, false, TomlItem::boolean);
    let knock_pass = section.or("knock_pass", report, false, TomlItem::boolean);
    let from = section.get("from", report, from);
    let group = section.get("group", report, |item, report| {
        item.text(report).map(str::to_owned)
    });
    (report.problems.len() == before).then_some(())?;
    Some(Door {
        name: name?,
        knock: match dynamic {
            Some(_) => Vec::new(),
            None => knock.unwrap_or_default(),
        },
        dynamic,
        effect,
        open_for,
        open_for_max: open_for_max.unwrap_or(open_for),
        grant_prefix,
        sequence_timeout,
        step_timeout,
        tcp_flags,
        on_open,
        on_close,
        target,
        verify,
        reply,
        knock_pass,
        from: from.unwrap_or_default(),
        group,
    })
}

/// Reads `one_time` and `otp`, the sources of changing sequences.
fn dynamic(
    section: &mut Section<'_, '_>,
    sequence_timeout: Duration,
    report: &mut ProblemReport,
) -> Option<Dynamic> {
    let lookahead = section.or("lookahead", report, LOOKAHEAD, |item, report| {
        item.number(report, 1..=LOOKAHEAD_MOST)
    });
    if section.lacks("one_time") && !section.lacks("lookahead") {
        let line = section.lines.get("lookahead").copied();
        report.add(
            line.unwrap_or(section.line),
            "lookahead",
            "only a door with one_time has a lookahead: remove it",
        );
    }
    if let Some(item) = section.item("otp", report) {
        return otp::read(&item, sequence_timeout, report).map(Dynamic::Otp);
    }
    let file = section.get("one_time", report, TomlItem::path)?;
    Some(Dynamic::OneTime(OneTime { file, lookahead }))
}

/// Reads a name. Names appear in the environment of commands, on the console and as arguments.
pub(super) fn name(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<String> {
    let name = item.text(report)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > NAME_MOST || !name.chars().all(fits) {
        let reason = format!(
            "{name:?} is not a name: write 1 to {NAME_MOST} letters, digits, dots, dashes and \
             underscores"
        );
        return item.wrong(report, reason);
    }
    Some(name.to_owned())
}

fn knocks(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<Knock>> {
    let before = report.problems.len();
    let knocks = item.list(report, str::parse::<Knock>)?;
    (report.problems.len() == before).then_some(())?;
    match knocks.len() {
        0 => item.wrong(
            report,
            "empty: write at least one knock, preferably three or more",
        ),
        many if many > KNOCKS_MAX => item.wrong(
            report,
            format!("{many} knocks are too many: a sequence has at most {KNOCKS_MAX}"),
        ),
        _ => Some(knocks),
    }
}

fn from(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<Vec<Prefix>> {
    let before = report.problems.len();
    let prefixes = item.list(report, str::parse::<Prefix>)?;
    (report.problems.len() == before).then_some(())?;
    match prefixes.is_empty() {
        true => item.wrong(
            report,
            "empty, so nobody could use the door: name a prefix, or remove from to admit all sources",
        ),
        false => Some(prefixes),
    }
}

fn effect(section: &mut Section<'_, '_>, report: &mut ProblemReport) -> Effect {
    let open: Option<Vec<Ports>> =
        section.get("open", report, |item, report| item.list(report, str::parse));
    let close: Option<Vec<Ports>> = section.get("close", report, |item, report| {
        item.list(report, str::parse)
    });
    let open = open.unwrap_or_default();
    let Some(close) = close.filter(|close| !close.is_empty()) else {
        let nothing = ["open", "close", "on_open"].map(|key| section.lacks(key));
        let empty = open.is_empty() && !section.lacks("open") && section.lacks("on_open");
        if nothing == [true; 3] {
            report.add(
                section.line,
                "open",
                "missing: a door opens ports, as in open = [\"tcp/22\"], closes ports, or runs a \
                 command",
            );
        } else if empty && section.lacks("close") {
            report_empty(section, report);
        }
        return Effect::Open(open);
    };
    let line = section.lines.get("close").copied().unwrap_or(section.line);
    if !open.is_empty() {
        report.add(
            line,
            "close",
            "a door either opens or closes ports: define two doors",
        );
    }
    for (key, reason) in [
        (
            "open_for",
            "a door that closes ports gives no grant: remove open_for",
        ),
        (
            "open_for_max",
            "a door that closes ports gives no grant: remove open_for_max",
        ),
        (
            "grant_prefix",
            "a door that closes ports ends grants as wide as the doors that open them gave: remove \
             grant_prefix",
        ),
        (
            "on_close",
            "a door that closes ports gives no grant that could expire: use on_open, which runs \
             when the sequence is complete, or move on_close to the door that opens them",
        ),
    ] {
        if let Some(item) = section.item(key, report) {
            item.wrong::<()>(report, reason);
        }
    }
    Effect::Close(close)
}

/// Reports an empty `open`, unless it is empty because its items were wrong.
fn report_empty(section: &mut Section<'_, '_>, report: &mut ProblemReport) {
    let Some(line) = section.lines.get("open").copied() else {
        return;
    };
    let is_about_open = |problem: &crate::model::problem::Problem| {
        problem.key == "open" && problem.line.is_some_and(|at| at >= line)
    };
    if !report.problems.iter().any(is_about_open) {
        report.add(
            line,
            "open",
            "empty: name a port, or add on_open if the door only runs a command",
        );
    }
}

fn command(
    item: &TomlItem<'_, '_>,
    timeout: Duration,
    report: &mut ProblemReport,
) -> Option<Command> {
    let mut words = item.list(report, placeholders)?.into_iter();
    let Some(program) = words.next().filter(|program| !program.is_empty()) else {
        return item.wrong(
            report,
            "empty: write the program, then its arguments, as in [\"/usr/bin/logger\", \
             \"{source}\"]",
        );
    };
    // A name without a slash is searched for in PATH.
    let program = match program.contains('/') {
        true => report.path(&program),
        false => PathBuf::from(program),
    };
    Some(Command {
        program,
        arguments: words.collect(),
        timeout,
    })
}

/// The placeholders that commands may use.
const PLACEHOLDERS: [&str; 4] = ["source", "door", "port", "family"];

fn placeholders(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err(format!(
            "{text:?} contains a zero byte, which an argument can't contain: \
             remove it"
        ));
    }
    // knockd's placeholder.
    if text.contains("%IP%") {
        return Err(format!(
            "{text:?} uses knockd's %IP%: write \"{}\"",
            text.replace("%IP%", "{source}")
        ));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        rest = after;
        let Some((word, _)) = after.split_once('}') else {
            break;
        };
        let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_word && !PLACEHOLDERS.contains(&word) {
            return Err(format!(
                "{{{word}}} is not a placeholder: commands may use {{source}}, {{door}}, \
                 {{port}} and \
                 {{family}}"
            ));
        }
    }
    Ok(text.to_owned())
}

fn open_for_max(
    item: &TomlItem<'_, '_>,
    open_for: Duration,
    report: &mut ProblemReport,
) -> Option<Duration> {
    let most = item.duration(report, SECOND, OPEN_FOR_MOST)?;
    if most < open_for {
        let reason = format!(
            "\"{}\" is shorter than open_for, which is {}: lengthen it, or shorten open_for",
            duration::spell(most),
            duration::spell(open_for)
        );
        return item.wrong(report, reason);
    }
    Some(most)
}

fn step_timeout(
    item: &TomlItem<'_, '_>,
    sequence_timeout: Duration,
    report: &mut ProblemReport,
) -> Option<Duration> {
    let step = item.duration(report, STEP_LEAST, SEQUENCE_TIMEOUT_MOST)?;
    if step > sequence_timeout {
        let reason = format!(
            "\"{}\" is longer than sequence_timeout, which is {}: shorten it, or lengthen \
             sequence_timeout",
            duration::spell(step),
            duration::spell(sequence_timeout)
        );
        return item.wrong(report, reason);
    }
    Some(step)
}

fn target(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<IpAddr> {
    let address = item.parsed(report, value::address)?;
    if address.is_unspecified() || address.is_multicast() {
        let reason = format!(
            "\"{address}\" is not the address of a host: write one of this host, or remove \
             target to cover all of them"
        );
        return item.wrong(report, reason);
    }
    Some(address)
}
