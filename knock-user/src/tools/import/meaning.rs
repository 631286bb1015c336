//! Finds the effect of one of knockd's command lines.

use std::time::Duration;

use knock_sequence::Ports;

use super::{rule, rule_parts::Rule, shell};

/// A line without its firewall commands, and the effect of those.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct LineMeaning {
    pub(super) effect: CommandEffect,
    /// The commands to keep, as a shell script.
    pub(super) rest: Option<String>,
}

/// The effect of the firewall commands for the source.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum CommandEffect {
    #[default]
    None,
    Open {
        ports: Vec<Ports>,
        /// The time after which the line itself closes the ports.
        open_for: Option<Duration>,
    },
    Close(Vec<Ports>),
}

impl LineMeaning {
    /// Keeps a line unchanged.
    pub(super) fn kept(line: &str) -> Self {
        let line = line.trim();
        Self {
            effect: CommandEffect::None,
            rest: (!line.is_empty()).then(|| line.to_owned()),
        }
    }

    /// Returns the effect of a line; knocks arrive on `interface`.
    pub(super) fn of(line: &str, interface: &str) -> Self {
        understood(line, interface).unwrap_or_else(|| Self::kept(line))
    }
}

/// Returns the effect of a list of commands whose firewall commands fit together.
fn understood(line: &str, interface: &str) -> Option<LineMeaning> {
    let mut sum = LineSummary::default();
    for command in shell::commands(line)? {
        sum.joined_by_success &= command.needs_success;
        match rule::rule(&command.words, interface) {
            Some(Rule::Open(ports)) => sum.open(ports)?,
            Some(Rule::Close(ports)) => sum.close(ports)?,
            None => match sleep(&command.words) {
                Some(time) if sum.may_sleep() => sum.open_for = Some(time),
                _ => sum.keep(command.text),
            },
        }
    }
    sum.meaning()
}

/// Parses `sleep 10`.
fn sleep(words: &[String]) -> Option<Duration> {
    let [program, time] = words else { return None };
    let is_sleep = matches!(program.as_str(), "sleep" | "/bin/sleep" | "/usr/bin/sleep");
    let seconds = time.strip_suffix('s').unwrap_or(time).parse::<u32>().ok()?;
    is_sleep.then(|| Duration::from_secs(u64::from(seconds)))
}

/// The commands of a line so far.
#[derive(Debug)]
struct LineSummary {
    opened: Vec<Ports>,
    closed: Vec<Ports>,
    open_for: Option<Duration>,
    closed_again: Vec<Ports>,
    kept: String,
    /// Since the last kept command, each one depends on the success of the previous one.
    joined_by_success: bool,
}

impl Default for LineSummary {
    fn default() -> Self {
        Self {
            opened: Vec::new(),
            closed: Vec::new(),
            open_for: None,
            closed_again: Vec::new(),
            kept: String::new(),
            joined_by_success: true,
        }
    }
}

impl LineSummary {
    fn open(&mut self, ports: Vec<Ports>) -> Option<()> {
        self.open_for.is_none().then_some(())?;
        // The line deletes the rule first to avoid a second one.
        self.closed.retain(|closed| !ports.contains(closed));
        // The rules for both families have the same effect.
        let new = ports.into_iter().filter(|port| !self.opened.contains(port));
        let new: Vec<Ports> = new.collect();
        self.opened.extend(new);
        Some(())
    }

    fn close(&mut self, ports: Vec<Ports>) -> Option<()> {
        if self.open_for.is_some() {
            self.closed_again.extend(ports);
            return Some(());
        }
        let undoes = ports.iter().any(|port| self.opened.contains(port));
        let new = ports.into_iter().filter(|port| !self.closed.contains(port));
        let new: Vec<Ports> = new.collect();
        self.closed.extend(new);
        (!undoes).then_some(())
    }

    fn may_sleep(&self) -> bool {
        !self.opened.is_empty() && self.open_for.is_none()
    }

    fn keep(&mut self, text: &str) {
        if !self.kept.is_empty() {
            self.kept += if self.joined_by_success { " && " } else { "; " };
        }
        self.kept += text;
        self.joined_by_success = true;
    }

    fn meaning(self) -> Option<LineMeaning> {
        let Self {
            opened,
            closed,
            open_for,
            closed_again,
            kept,
            ..
        } = self;
        let effect = match (opened.is_empty(), closed.is_empty()) {
            (true, true) => CommandEffect::None,
            (true, false) => CommandEffect::Close(closed),
            (false, true) => CommandEffect::Open {
                ports: opened,
                open_for,
            },
            (false, false) => return None,
        };
        if let CommandEffect::Open {
            ports,
            open_for: Some(_),
        } = &effect
        {
            // Kept commands depend on the pause, which is removed.
            let all = ports.iter().all(|port| closed_again.contains(port));
            (all && kept.is_empty()).then_some(())?;
        }
        let rest = (!kept.is_empty()).then_some(kept);
        Some(LineMeaning { effect, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT";
    const CLOSE: &str = "iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT";

    fn summary(line: &str) -> String {
        let LineMeaning { effect, rest } = LineMeaning::of(line, "eth0");
        let words = |ports: &[Ports]| {
            let ports: Vec<String> = ports.iter().map(Ports::to_string).collect();
            ports.join(" ")
        };
        let effect = match effect {
            CommandEffect::None => "nothing".to_owned(),
            CommandEffect::Open {
                ports,
                open_for: None,
            } => format!("open {}", words(&ports)),
            CommandEffect::Open {
                ports,
                open_for: Some(time),
            } => format!("open {} for {time:?}", words(&ports)),
            CommandEffect::Close(ports) => format!("close {}", words(&ports)),
        };
        match rest {
            Some(rest) => format!("{effect}, and {rest}"),
            None => effect,
        }
    }

    #[test]
    fn the_effect_of_a_line_is_found() {
        let web = OPEN.replace("22", "80");
        let rows = [
            ("open", OPEN.to_owned(), "open tcp/22"),
            ("close", CLOSE.to_owned(), "close tcp/22"),
            ("nothing", " ".to_owned(), "nothing"),
            ("two", format!("{OPEN}; {web}"), "open tcp/22 tcp/80"),
            (
                "for both families",
                format!("{OPEN}; {}", OPEN.replace("iptables", "ip6tables")),
                "open tcp/22",
            ),
            (
                "closed for both families",
                format!("{CLOSE}; {}", CLOSE.replace("iptables", "ip6tables")),
                "close tcp/22",
            ),
            ("no rule twice", format!("{CLOSE}; {OPEN}"), "open tcp/22"),
            (
                "for a time",
                format!("{OPEN}; sleep 15; {CLOSE}"),
                "open tcp/22 for 15s",
            ),
            (
                "for a time, with and",
                format!("{OPEN} && sleep 15s && {CLOSE}"),
                "open tcp/22 for 15s",
            ),
            (
                "and a word",
                format!("{OPEN} && logger %IP%"),
                "open tcp/22, and logger %IP%",
            ),
            (
                "before and after",
                format!("a && {OPEN} && b"),
                "open tcp/22, and a && b",
            ),
            (
                "one after the other",
                format!("a; {OPEN} && b"),
                "open tcp/22, and a; b",
            ),
            (
                "a pause of something else",
                "sleep 5; a".to_owned(),
                "nothing, and sleep 5; a",
            ),
        ];
        for (name, line, expected) in rows {
            assert_eq!(summary(&line), expected, "{name}: {line}");
        }
    }

    #[test]
    fn lines_that_are_not_understood_are_kept_whole() {
        let rows = [
            ("another program", "/usr/bin/logger %IP%".to_owned()),
            ("opened and closed", format!("{OPEN}; {CLOSE}")),
            (
                "one port opened, another closed",
                format!("{OPEN}; {}", CLOSE.replace("22", "80")),
            ),
            ("not closed again", format!("{OPEN}; sleep 15")),
            (
                "something after the pause",
                format!("{OPEN}; sleep 15; {CLOSE}; logger"),
            ),
            (
                "opened after the pause",
                format!("{OPEN}; sleep 15; {OPEN}"),
            ),
            (
                "in the background",
                format!("({OPEN}; sleep 15; {CLOSE}) &"),
            ),
            (
                "if there is no rule",
                format!("iptables -C INPUT || {OPEN}"),
            ),
        ];
        for (name, line) in rows {
            assert_eq!(summary(&line), format!("nothing, and {line}"), "{name}");
        }
    }
}
