//! Reports the state to the service manager in one line, and warns of interfaces that stay unprotected.

use std::{io::Write, time::Duration};

use anyhow::Result;

use knock_sequence::duration::spell_short;

use super::state::Daemon;
use crate::{
    host::{clock, os_error, service_manager},
    interfaces::coverage::{Coverage, CoverageState},
    model::text::{about, list},
};

impl<W: Write> Daemon<W> {
    /// Reports the end of a start or reload, and the state, to the service manager.
    pub(super) fn notify_ready(&mut self) {
        self.reported_state = self.state_text();
        service_manager::ready(&self.reported_state);
    }

    /// Reports the state to the service manager if it changed.
    pub(super) fn notify_state(&mut self) {
        let state = self.state_text();
        if state != self.reported_state {
            service_manager::status(&state);
            self.reported_state = state;
        }
    }

    fn state_text(&self) -> String {
        let interfaces = match self.protection.coverage() {
            Ok(interfaces) => interfaces,
            Err(error) => {
                let error = os_error::describe(&error);
                return format!("what is in force can't be read: {error}");
            }
        };
        let mut text = sentence(&self.ports, &interfaces, self.run.dry_run);
        if self.trial.is_some() {
            text += "; on trial until `knock-user confirm`";
        }
        text
    }

    /// Warns of interfaces that are not protected for longer than a minute, once an hour.
    pub(super) fn warn_of_waiting(&mut self) -> Result<()> {
        let interfaces = self.protection.coverage()?;
        let unprotected = interfaces.iter().filter(|one| !one.state.is_protected());
        let names = unprotected.map(|one| one.name.as_str());
        for (name, waited_ms) in self.waiting.overdue(names, clock::boot_ms()) {
            let state = interfaces.iter().find(|one| one.name == name);
            let because = state
                .and_then(|one| one.state.because())
                .unwrap_or_default();
            tracing::warn!(
                "{name} has not been protected for {}: {}; until it is, `knock-user status` fails",
                spell_short(Duration::from_millis(waited_ms)),
                about(&name, &because)
            );
        }
        Ok(())
    }
}

/// Describes which interfaces are protected.
fn sentence(ports: &[String], interfaces: &[Coverage], is_dry: bool) -> String {
    let (protected, others): (Vec<_>, Vec<_>) =
        interfaces.iter().partition(|one| one.state.is_protected());
    let is_blocked = |one: &&Coverage| one.state == CoverageState::Blocked;
    let (blocked, others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_blocked);
    let names = |of: &[&Coverage]| of.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let doing = match is_dry {
        true => "dry run, nothing is dropped: would protect",
        false => "protecting",
    };
    let text = match (protected.as_slice(), others.as_slice()) {
        ([], []) if !blocked.is_empty() => "NOT protecting".to_owned(),
        ([], others) => format!("NOT protecting, waiting for {}", names(others).join(", ")),
        (protected, []) => format!("{doing} {} on {}", list(ports), names(protected).join(", ")),
        (protected, others) => format!(
            "{doing} {} on {}; NOT on {}",
            list(ports),
            names(protected).join(", "),
            names(others).join(", ")
        ),
    };
    match blocked.as_slice() {
        [] => text,
        blocked => format!(
            "{text}; nothing gets in through {}",
            names(blocked).join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_gets_one_line() {
        let of = |name: &str, state: CoverageState| Coverage {
            name: name.to_owned(),
            now: None,
            index: None,
            state,
        };
        let on = |name| {
            of(
                name,
                CoverageState::Protected {
                    mode: crate::model::attach_mode::AttachMode::Native,
                    chosen: None,
                    program: 7,
                    is_pinned: true,
                    behind: Vec::new(),
                },
            )
        };
        let ports = ["tcp/22".to_owned()];
        for (name, interfaces, is_dry, expected) in [
            ("all", vec![on("eth0")], false, "protecting tcp/22 on eth0"),
            (
                "a dry run",
                vec![on("eth0")],
                true,
                "dry run, nothing is dropped: would protect tcp/22 on eth0",
            ),
            (
                "none",
                vec![of("eth0", CoverageState::Absent)],
                false,
                "NOT protecting, waiting for eth0",
            ),
            (
                "one that is blocked",
                vec![on("eth0"), of("eth1", CoverageState::Blocked)],
                false,
                "protecting tcp/22 on eth0; nothing gets in through eth1",
            ),
            (
                "blocked",
                vec![of("eth0", CoverageState::Blocked)],
                false,
                "NOT protecting; nothing gets in through eth0",
            ),
            (
                "some",
                vec![on("eth0"), of("eth1", CoverageState::Missing)],
                false,
                "protecting tcp/22 on eth0; NOT on eth1",
            ),
        ] {
            assert_eq!(sentence(&ports, &interfaces, is_dry), expected, "{name}");
        }
    }
}
