//! Checks the lines of one-time files against the configuration that names them.

use std::{collections::BTreeMap, net::IpAddr};

use knock_common::packet::Protocol;
use knock_sequence::{Knock, PortSet, Ports, one_time::OneTimeText};

use super::scans::{Direction, Harmless, Touch};
use crate::{
    model::settings::{Decoys, Door, Exempt, OneTime, Settings, Verify},
    sequences::one_time::{self, OneTimeError},
};

/// How many bad lines of a file are reported one by one.
const FLAWS_SHOWN: usize = 5;

/// Returns warnings about the one-time file of a door.
pub(super) fn warnings(settings: &Settings, door: &Door, one_time: &OneTime) -> Vec<String> {
    let path = one_time.file.display();
    let unusable = |error: &OneTimeError| format!("the door can't be opened: {error}");
    let mut lines = OneTimeCheck::new(settings, door);
    let one_time_text = match one_time::inspect(&one_time.file, |knocks| lines.refuse(knocks)) {
        Ok(one_time_text) => one_time_text,
        Err(error) => return vec![unusable(&error)],
    };
    let mut reasons: Vec<String> = one_time::exposure(&one_time.file).into_iter().collect();
    let flaws = one_time_text.flaws().take(FLAWS_SHOWN);
    reasons.extend(flaws.map(|flaw| {
        format!(
            "{path}:{}: {}; the line is not used",
            flaw.line, flaw.reason
        )
    }));
    let more = one_time_text.flaws().count().saturating_sub(FLAWS_SHOWN);
    if more > 0 {
        reasons.push(format!("{path}: {more} more lines are not used"));
    }
    reasons.extend(exhausted(&one_time_text, one_time).as_ref().map(unusable));
    reasons
}

fn exhausted(one_time_text: &OneTimeText, one_time: &OneTime) -> Option<OneTimeError> {
    let path = one_time.file.clone();
    let none = one_time_text.unused().next().is_none();
    none.then_some(OneTimeError::Exhausted { path })
}

/// Decides which sequences of a file a door can use: those that would be valid in the
/// configuration.
pub(crate) struct OneTimeCheck<'a> {
    settings: &'a Settings,
    door: &'a Door,
    protected: PortSet,
    /// Other ports that can't be knocks, each with what it is.
    taken: Vec<(Ports, &'static str)>,
    /// Doors with a fixed sequence, by that sequence.
    fixed: BTreeMap<&'a [Knock], &'a Door>,
    harmless: Harmless<'a>,
}

impl<'a> OneTimeCheck<'a> {
    pub(crate) fn new(settings: &'a Settings, door: &'a Door) -> Self {
        let meets = |target: Option<IpAddr>| {
            target.is_none() || door.target.is_none() || target == door.target
        };
        let others = settings.doors.iter();
        let others = others.filter(|other| other.dynamic.is_none() && meets(other.target));
        let mut taken: Vec<(Ports, &str)> = Vec::new();
        let mut exempt: &[Ports] = &[];
        if let Decoys::Listed(listed) = &settings.decoys {
            taken.extend(listed.iter().map(|&ports| (ports, "a decoy")));
        }
        if let Exempt::Listed(listed) = &settings.exempt {
            exempt = listed;
            taken.extend(listed.iter().map(|&ports| (ports, "exempt")));
        }
        let next_line = settings
            .next_line
            .map(|next_line| Ports::tcp(next_line.port()));
        taken.extend(next_line.map(|ports| (ports, "where [next_line] listens")));
        let spa = settings.spa_ports().iter();
        taken.extend(spa.map(|&ports| (ports, "where SPA packets arrive")));
        Self {
            settings,
            door,
            protected: settings.protected(),
            taken,
            fixed: others
                .map(|other| (other.knock.as_slice(), other))
                .collect(),
            harmless: Harmless::new(settings, exempt),
        }
    }

    /// Returns why the door can't use a sequence; `None` if it can.
    pub(crate) fn refuse(&mut self, knocks: &[Knock]) -> Option<String> {
        for &knock in knocks {
            if self.protected.has(knock.protocol, knock.port) {
                return Some(format!("{knock} is protected, so it can't be a knock"));
            }
            let overlaps = |(ports, _): &&(Ports, &str)| ports.overlaps(knock.into());
            if let Some((_, what)) = self.taken.iter().find(overlaps) {
                return Some(format!("{knock} is {what}, so it can't be a knock"));
            }
            if self.door.verify == Verify::Handshake && knock.protocol == Protocol::Udp {
                return Some(format!(
                    "{knock} can't be verified, because UDP has no handshake"
                ));
            }
            if let Some(other) = self.other(knock, |other| other.verify != self.door.verify) {
                return Some(format!(
                    "{knock} is a knock of door \"{}\", which has verify = \"{}\"",
                    other.name,
                    other.verify.name()
                ));
            }
            if let Some(other) = self.other(knock, |other| other.tcp_flags != self.door.tcp_flags) {
                return Some(format!(
                    "door \"{}\" wants other tcp_flags for {knock}",
                    other.name
                ));
            }
        }
        if let Some(other) = self.fixed.get(knocks) {
            return Some(format!("door \"{}\" has the same sequence", other.name));
        }
        // Any scan completes a single knock; the author of the file accepted that.
        if knocks.len() < 2 {
            return None;
        }
        let direction = match self.settings.strict {
            true => self.harmless.walk(knocks, Touch::of(self.door)),
            false => Direction::of(knocks),
        };
        direction.map(|direction| direction.to_string())
    }

    /// Returns another door with this TCP knock whose settings differ.
    fn other(&self, knock: Knock, differs: impl Fn(&Door) -> bool) -> Option<&'a Door> {
        let doors = &self.settings.doors;
        doors
            .iter()
            .filter(|_| knock.protocol == Protocol::Tcp)
            .find(|other| differs(other) && other.knock.contains(&knock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const CONFIG: &str = "
        strict = STRICT
        protect = [\"tcp/3306\"]
        exempt = [\"tcp/443\"]
        decoys = { ports = [\"tcp/4000\"] }
        [next_line]
        listen = \"[::]:7001\"
        [[door]]
        name = \"once\"
        one_time = \"once\"
        open = [\"tcp/22\"]
        [[door]]
        name = \"fixed\"
        knock = [\"tcp/7002\", \"udp/8000\", \"tcp/6000\"]
        open = [\"tcp/80\"]
        [[door]]
        name = \"flags\"
        knock = [\"tcp/7003\", \"udp/8000\", \"tcp/6001\"]
        tcp_flags = \"syn,ack\"
        open = [\"tcp/81\"]
    ";

    #[test]
    fn a_line_is_used_if_it_is_valid_as_a_knock_of_its_door() {
        let rows: [(&str, bool, &[&str], Option<&str>); 12] = [
            (
                "a good one",
                true,
                &["tcp/7000", "udp/9000", "tcp/5000"],
                None,
            ),
            ("one knock", true, &["tcp/7000"], None),
            (
                "ascending, with others between",
                true,
                &["tcp/1000", "tcp/2000"],
                None,
            ),
            (
                "ascending, and nothing resets",
                false,
                &["tcp/1000", "tcp/2000"],
                Some("a port scan in ascending order would complete this sequence"),
            ),
            (
                "neighbours",
                true,
                &["tcp/1000", "tcp/1001"],
                Some("a port scan in ascending order would complete this sequence"),
            ),
            (
                "opened",
                true,
                &["udp/1", "tcp/22"],
                Some("tcp/22 is protected"),
            ),
            (
                "protected",
                true,
                &["udp/1", "tcp/3306"],
                Some("tcp/3306 is protected"),
            ),
            (
                "exempt",
                true,
                &["udp/1", "tcp/443"],
                Some("tcp/443 is exempt"),
            ),
            (
                "a decoy",
                true,
                &["udp/1", "tcp/4000"],
                Some("tcp/4000 is a decoy"),
            ),
            (
                "the index",
                true,
                &["tcp/7001", "udp/1"],
                Some("tcp/7001 is where [next_line] listens"),
            ),
            (
                "another door's",
                true,
                &["tcp/7002", "udp/8000", "tcp/6000"],
                Some("door \"fixed\" has the same sequence"),
            ),
            (
                "another door's flags",
                true,
                &["tcp/6001", "udp/1"],
                Some("door \"flags\" wants other tcp_flags for tcp/6001"),
            ),
        ];
        for (name, strict, knocks, expected) in rows {
            let text = CONFIG.replace("STRICT", &strict.to_string());
            let checked = config::parse(&text, "test.toml");
            let checked = checked.unwrap_or_else(|problems| panic!("{problems}"));
            let settings = &checked.settings;
            let knocks: Vec<Knock> = knocks.iter().map(|knock| knock.parse().unwrap()).collect();
            let refusal = OneTimeCheck::new(settings, &settings.doors[0]).refuse(&knocks);
            assert_eq!(refusal.is_some(), expected.is_some(), "{name}: {refusal:?}");
            let refusal = refusal.unwrap_or_default();
            assert!(
                refusal.starts_with(expected.unwrap_or_default()),
                "{name}: {refusal}"
            );
        }
    }
}
