//! What a configuration is for. One that has no effect is far more often a file that was emptied
//! by mistake than a wish, and putting it in place would open every port.

use std::path::Path;

use knock_sequence::{PortSet, Ports};

use super::Checked;
use crate::{
    compile,
    model::{
        problem::{Problem, Problems},
        settings::{Door, Settings, Verify},
    },
};

impl Settings {
    /// Whether a port is closed to those who did not knock.
    pub fn protects(&self) -> bool {
        !compile::protected(self).ranges().is_empty()
    }

    /// Whether a door runs a command.
    pub fn runs_commands(&self) -> bool {
        let mut doors = self.doors.iter();
        doors.any(|door| door.on_open.is_some() || door.on_close.is_some())
    }

    /// What is not done while no process runs, a sentence each.
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
            proved.map(|doors| format!("keys for the handshakes of {doors} are not renewed, and after two hours nobody can open it")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The ports among these, as texts, that are not protected by this configuration.
    pub fn leaves_open(&self, protected: &[String]) -> Vec<Ports> {
        let before = protected.iter().filter_map(|ports| ports.parse().ok());
        PortSet::new(before).without(&compile::protected(self))
    }
}

impl Checked {
    /// Checks that the file has an effect.
    ///
    /// # Errors
    /// It protects nothing and runs nothing.
    pub fn has_effect(&self) -> Result<(), Problems> {
        if self.settings.protects() || self.settings.runs_commands() {
            return Ok(());
        }
        Err(self.problem(
            "",
            "it protects no port and no door runs a command, so it has no effect: name ports with \
             `open` in a door, or with `protect`; `knock-user detach` ends a protection",
        ))
    }

    /// Checks that the file may take the place of a configuration that protects these ports.
    ///
    /// # Errors
    /// It would leave none of them protected, and nothing else.
    pub fn may_replace(&self, protected: &[String]) -> Result<(), Problems> {
        if protected.is_empty() || self.settings.protects() {
            return Ok(());
        }
        Err(self.problem(
            "",
            format!(
                "it protects no port, and {} would be open to everybody: nothing is changed; \
                 `knock-user detach` ends the protection, if that is what you want",
                protected.join(", ")
            ),
        ))
    }

    /// Checks that the file may take the place of a configuration of which nothing is known, since
    /// neither its registry nor the port table of its program can be read.
    ///
    /// # Errors
    /// It may not: any port may be one that would be open by that.
    pub fn may_replace_unknown(&self, registry: &Path) -> Result<(), Problems> {
        Err(self.problem(
            "",
            format!(
                "which ports the program that is attached protects can't be read from {}, so \
                 whether this file would open some of them is not known: nothing is changed. \
                 `knock-user detach` ends that protection, and the ports are open until the next \
                 start: start again right after it",
                registry.display()
            ),
        ))
    }

    /// A problem with the whole file, or with a key of it.
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
    fn ports_that_are_left_open() {
        let checked = parse("protect = [\"tcp/20-25\"]\n", "seq.toml").unwrap();
        let before = ["tcp/22", "tcp/24-30", "udp/53"].map(str::to_owned);
        let open = checked.settings.leaves_open(&before);
        let open: Vec<_> = open.iter().map(ToString::to_string).collect();
        assert_eq!(open, ["tcp/26-30", "udp/53"]);
    }
}
