//! Refuses configurations without an effect. Such a file was most likely emptied by mistake, and
//! applying it would open every port.

use std::path::Path;

use knock_sequence::{PortSet, Ports};

use super::checked::Checked;
use crate::model::{
    problem::{Problem, Problems},
    settings::{Door, Settings, Verify},
};

impl Settings {
    /// Returns whether any port is protected.
    pub fn protects(&self) -> bool {
        !self.protected().ranges().is_empty()
    }

    /// Returns whether a door runs a command.
    pub fn runs_commands(&self) -> bool {
        let mut doors = self.doors.iter();
        doors.any(|door| door.on_open.is_some() || door.on_close.is_some())
    }

    /// Returns what is not done while no daemon runs, a sentence each.
    pub fn needs_process(&self) -> Vec<String> {
        let named = |is_meant: &dyn Fn(&&Door) -> bool| {
            let doors = self.doors.iter().filter(is_meant);
            let names: Vec<_> = doors.map(|door| door.name.as_str()).collect();
            match names.as_slice() {
                [] => None,
                [one] => Some(format!("door {one}")),
                [one, ..] => Some(format!("door {one} and {} more", names.len() - 1)),
            }
        };
        let commands = named(&|door| door.on_open.is_some() || door.on_close.is_some());
        let dynamic = named(&|door| door.dynamic.is_some());
        let proved = named(&|door| door.verify == Verify::Handshake);
        [
            commands.map(|doors| format!("commands of {doors} are not run")),
            dynamic.map(|doors| format!("the sequences of {doors} do not change, and soon open nothing")),
            self.spa().map(|_| "changes of this host's clock are not followed, so that SPA packets may be refused as stale".to_owned()),
            proved.map(|doors| format!("keys for the handshakes of {doors} are not renewed, and after two hours no knock is accepted there")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Returns those of the given ports, written as text, that this configuration does not protect.
    pub fn leaves_open(&self, protected: &[String]) -> Vec<Ports> {
        let before = protected.iter().filter_map(|ports| ports.parse().ok());
        PortSet::new(before).without(&self.protected())
    }
}

impl Checked {
    /// Checks that the file has an effect.
    ///
    /// # Errors
    /// Returns a problem if it protects no port and runs no command.
    pub fn has_effect(&self) -> Result<(), Problems> {
        if self.settings.protects() || self.settings.runs_commands() {
            return Ok(());
        }
        Err(self.problem(
            "",
            "it protects no port and runs no command, so it has no effect: name ports with \
             `open` in a door, or with `protect`; to end the protection, run `knock-user detach`",
        ))
    }

    /// Checks that the file may replace a configuration that protects these ports.
    ///
    /// # Errors
    /// Returns a problem if it protects no port while the other one does.
    pub fn may_replace(&self, protected: &[String]) -> Result<(), Problems> {
        if protected.is_empty() || self.settings.protects() {
            return Ok(());
        }
        Err(self.problem(
            "",
            format!(
                "it protects no port, so {} would be open to everybody; nothing was changed: to \
                 open them, run `knock-user detach`",
                protected.join(", ")
            ),
        ))
    }

    /// Refuses to replace a configuration whose protected ports are unknown, since neither its
    /// registry nor the port table of its program can be read.
    ///
    /// # Errors
    /// Always returns a problem: the file could open any port.
    pub fn may_replace_unknown(&self, registry: &Path) -> Result<(), Problems> {
        Err(self.problem(
            "",
            format!(
                "the ports that the attached program protects can't be read from {}, so this \
                 file may open some of them; nothing was changed: run `knock-user detach`, which \
                 opens the ports, and start again right after it",
                registry.display()
            ),
        ))
    }

    /// Returns a problem of the whole file, or of one key.
    pub fn problem(&self, key: &str, reason: impl Into<String>) -> Problems {
        Problems {
            file: self.file.clone(),
            list: vec![Problem {
                line: self.places.keys.get(key).copied(),
                key: key.to_owned(),
                reason: reason.into(),
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    const DOOR: &str =
        "[[door]]\nname = \"a\"\nknock = [\"tcp/7000\", \"udp/9000\", \"tcp/8000\"]\n";

    #[test]
    fn files_without_an_effect_are_refused() {
        let opens = format!("{DOOR}open = [\"tcp/22\"]");
        let runs = format!("{DOOR}open = []\non_open = [\"/bin/true\"]");
        for (name, text, has_effect, may_replace) in [
            ("empty", "", false, false),
            ("blank", "\n \t\n", false, false),
            ("comments", "# interfaces = [\"eth0\"]\n", false, false),
            (
                "other keys",
                "interfaces = [\"eth0\"]\n[lockout]\nfailures = 5\n",
                false,
                false,
            ),
            (
                "empty lists",
                "protect = []\ninterfaces = []\n",
                false,
                false,
            ),
            (
                "decoys alone",
                "[decoys]\nports = [\"tcp/7001\"]\n",
                false,
                false,
            ),
            ("commands alone", &runs, true, false),
            ("a port", "protect = [\"tcp/22\"]\n", true, true),
            ("a door", &opens, true, true),
        ] {
            let checked = parse(text, "seq.toml").unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(checked.has_effect().is_ok(), has_effect, "{name}");
            let replaced = checked.may_replace(&["tcp/22".to_owned()]);
            assert_eq!(replaced.is_ok(), may_replace, "{name}");
            assert!(
                checked.may_replace(&[]).is_ok(),
                "{name}: nothing is open by that"
            );
        }
    }

    #[test]
    fn unprotected_ports_of_a_previous_configuration_are_found() {
        let checked = parse("protect = [\"tcp/20-25\"]\n", "seq.toml").unwrap();
        let before = ["tcp/22", "tcp/24-30", "udp/53"].map(str::to_owned);
        let open = checked.settings.leaves_open(&before);
        let open: Vec<_> = open.iter().map(ToString::to_string).collect();
        assert_eq!(open, ["tcp/26-30", "udp/53"]);
    }
}
