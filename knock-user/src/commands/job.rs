//! A command to run, with its occasion.

use std::net::IpAddr;

use crate::model::{
    fair_shares::network,
    settings::{Command, Prefix},
};

/// A command to run for a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Job {
    /// The occasion of the command.
    pub occasion: Occasion,
    /// The source, or the prefix that its grant covers.
    pub source: Prefix,
    /// The door's name.
    pub door: String,
    /// The user whose SPA packet is the occasion; none if there was no such packet.
    pub user: Option<String>,
    /// The first port that the door opens.
    pub port: Option<u16>,
    /// The command.
    pub command: Command,
}

/// The occasion of the command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Occasion {
    /// The door opened.
    Open,
    /// The door closed.
    Close,
}

/// The key within which commands run one after the other.
pub(super) type TurnKey = (Prefix, String);

impl Occasion {
    /// Returns the key in the configuration.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Open => "on_open",
            Self::Close => "on_close",
        }
    }

    /// Returns the value of `KNOCK_EVENT`.
    pub const fn event(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
        }
    }
}

impl Job {
    /// Returns the key of the share of waiting commands that it takes.
    pub(super) fn share(&self) -> (&str, IpAddr) {
        (&self.door, network(self.source.address))
    }

    pub(super) fn turn(&self) -> TurnKey {
        (self.source, self.door.clone())
    }

    pub(super) fn arguments(&self) -> impl Iterator<Item = String> {
        let values = self.values();
        let fill = move |argument: &String| fill(argument, &values);
        self.command.arguments.iter().map(fill)
    }

    /// Returns the command line. A script that is given to a shell is shown alone.
    pub(crate) fn line(&self) -> String {
        let arguments: Vec<String> = self.arguments().collect();
        match arguments.as_slice() {
            [option, script] if option == "-c" => script.clone(),
            _ => {
                let program = self.command.program.display().to_string();
                [program]
                    .into_iter()
                    .chain(arguments)
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        }
    }

    pub(super) fn environment(&self) -> [(&'static str, String); 6] {
        let [(_, source), (_, door), (_, port), (_, family)] = self.values();
        [
            ("KNOCK_EVENT", self.occasion.event().to_owned()),
            ("KNOCK_SOURCE", source),
            ("KNOCK_DOOR", door),
            ("KNOCK_PORT", port),
            ("KNOCK_FAMILY", family),
            ("KNOCK_USER", self.user.clone().unwrap_or_default()),
        ]
    }

    fn values(&self) -> [(&'static str, String); 4] {
        let family = if self.source.address.is_ipv4() {
            "ipv4"
        } else {
            "ipv6"
        };
        let port = self.port.map(|port| port.to_string());
        [
            ("{source}", self.source.to_string()),
            ("{door}", self.door.clone()),
            ("{port}", port.unwrap_or_default()),
            ("{family}", family.to_owned()),
        ]
    }
}

/// Replaces placeholders in one pass; inserted values are not expanded again.
fn fill(argument: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(character) = rest.chars().next() {
        let value = values.iter().find(|(name, _)| rest.starts_with(name));
        let length = if let Some((name, value)) = value {
            filled.push_str(value);
            name.len()
        } else {
            filled.push(character);
            character.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_in_one_pass() {
        let values = [
            ("{source}", "2001:db8::9".to_owned()),
            ("{door}", "{source}".to_owned()),
        ];
        for (name, argument, filled) in [
            ("nothing", "plain", "plain"),
            ("alone", "{source}", "2001:db8::9"),
            ("inside", "a{source}b{source}", "a2001:db8::9b2001:db8::9"),
            ("a door with an odd name", "{door}", "{source}"),
            ("unknown", "{user} {} {source", "{user} {} {source"),
            ("doubled", "{{source}}", "{2001:db8::9}"),
            ("other letters", "ü{source}門", "ü2001:db8::9門"),
            ("empty", "", ""),
        ] {
            assert_eq!(fill(argument, &values), filled, "{name}");
        }
    }
}
