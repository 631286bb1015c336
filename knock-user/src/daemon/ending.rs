//! Ends the daemon, and reports what stays protected, as read from the kernel.

use std::{collections::BTreeSet, io::Write, time::Duration};

use anyhow::{Result, bail};

use super::{
    failed_commands::log_result,
    state::{Daemon, StopCause},
};
use crate::{
    commands::Occasion,
    host::{
        clock,
        interface::{self, Interface},
        os_error,
    },
    interfaces::coverage::CoverageState,
    kernel::{
        instance::Instance,
        persistence::{Lifetime, OnExit, Persistence},
        pins::{self, Pinned},
        registry::Registry,
    },
    model::text::list,
};

/// How long commands may take to end when the daemon stops.
const STOP_LIMIT: Duration = Duration::from_secs(15);

impl<W: Write> Daemon<W> {
    /// Ends or keeps the protection, and waits for commands; where the protection ends, `on_close`
    /// undoes what `on_open` did.
    pub(super) async fn end(mut self, outcome: StopCause) -> Result<()> {
        let was_asked = outcome == StopCause::Signal;
        let outcome = match outcome {
            // It can't be confirmed after the process has ended.
            StopCause::Signal if self.trial.is_some() && self.run.on_exit == OnExit::Keep => {
                StopCause::TrialExpired
            }
            StopCause::Signal | StopCause::Detach | StopCause::TrialExpired => outcome,
        };
        self.console.sum_up(clock::boot_ns(), true);
        // The previous program, restored by the roll-back, still uses its own sequences.
        if outcome != StopCause::TrialExpired {
            self.withdraw_sequences();
        }
        if let Err(error) = self.protection.save_stamps() {
            tracing::warn!("{}", os_error::describe(&error));
        }
        let keeps = match outcome {
            StopCause::Signal => self.run.on_exit == OnExit::Keep,
            StopCause::Detach => false,
            StopCause::TrialExpired => self.protection.rolls_back_to_protection(),
        };
        if !keeps {
            let openings: Vec<_> = self.ledger.openings().collect();
            for (source, door, _) in openings {
                self.command(Occasion::Close, source, door, None);
            }
        }
        let before = self.protected_interfaces();
        let instance = self.protection.instance().clone();
        let mut after = String::new();
        let is_on_trial = self.trial.is_some();
        let done = match outcome {
            StopCause::TrialExpired => self.protection.roll_back(),
            StopCause::Signal if keeps => Ok(()),
            StopCause::Signal | StopCause::Detach => self.protection.detach().map(drop),
        };
        if done.is_ok() {
            // After a roll-back, the ports of the previous configuration.
            let ports = match Registry::read(&instance.registry()) {
                Ok(Some(registry)) if keeps => registry.protected,
                Ok(_) | Err(_) => self.ports,
            };
            let stays = Stays::find(&instance, self.persistence);
            let mut fates = Vec::new();
            for interface in before {
                let at_ns = clock::boot_ns();
                let fate = stays.fate(&interface);
                match fate {
                    Fate::Stays => self.console.left(&ports, &interface, at_ns),
                    Fate::Unknown => self.console.uncertain(&ports, &interface, at_ns),
                    Fate::Ends => self.console.detached(&ports, &interface, at_ns),
                }
                fates.push(fate);
            }
            stays.warn();
            after = after_trial(&fates, &ports);
        }
        let mut reports = self.reports;
        let finish = self.commands.finish(STOP_LIMIT);
        tokio::pin!(finish);
        let unfinished = loop {
            tokio::select! {
                Some(report) = reports.recv() => log_result(&mut self.failed_commands, &report),
                unfinished = &mut finish => break unfinished,
            }
        };
        while let Ok(report) = reports.try_recv() {
            log_result(&mut self.failed_commands, &report);
        }
        for line in self.failed_commands.rest() {
            tracing::warn!("{line}");
        }
        if unfinished > 0 {
            tracing::warn!("{unfinished} commands did not end in time and were killed");
        }
        done?;
        if outcome == StopCause::TrialExpired {
            let when = match was_asked {
                true => "before the process was ended",
                false => "in time",
            };
            bail!("no confirmation came {when}: {after}");
        }
        if is_on_trial {
            tracing::warn!("no confirmation came before the process was ended: {after}");
        }
        Ok(())
    }

    /// Returns the interfaces whose end must be reported: those that are linked, and those that should be
    /// and exist. A refused interface was never protected, so nothing ends there.
    pub(super) fn protected_interfaces(&self) -> BTreeSet<String> {
        let all = interface::list().unwrap_or_default();
        let wanted = self.protection.registry().interfaces.iter();
        let there = wanted.filter(|name| all.iter().any(|interface| interface.is_called(name)));
        let mut names: BTreeSet<_> = there.cloned().collect();
        for one in self.protection.coverage().unwrap_or_default() {
            match one.state {
                CoverageState::Refused(_) => {
                    names.remove(&one.name);
                }
                CoverageState::Protected { .. }
                | CoverageState::Bypassed { .. }
                | CoverageState::Blocked
                | CoverageState::Absent
                | CoverageState::Missing => {}
            }
        }
        names.extend(self.protection.instance().linked());
        names
    }
}

/// The end of the protection of an interface with the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// The program stays attached.
    Stays,
    /// This process can't determine whether it stays.
    Unknown,
    /// The program is detached.
    Ends,
}

/// The links that stay when the process ends.
pub(super) struct Stays {
    /// `None` if they can't be read.
    links: Option<Vec<Pinned>>,
    all: Vec<Interface>,
    lifetime: Lifetime,
}

impl Stays {
    /// Reads the links that are pinned now.
    pub(super) fn find(instance: &Instance, persistence: Option<Persistence>) -> Self {
        let (links, all) = match (pins::links(instance), interface::list()) {
            (Ok(links), Ok(all)) => (Some(links), all),
            (Err(_), _) | (_, Err(_)) => (None, Vec::new()),
        };
        Self {
            links,
            all,
            lifetime: persistence.map_or(Lifetime::Unknown, Persistence::now),
        }
    }

    /// Returns what happens to an interface.
    pub(super) fn fate(&self, name: &str) -> Fate {
        let is_attached = self.links.as_ref().map(|links| {
            let mut links = links.iter().filter(|link| link.name == name);
            links.any(|link| self.all.iter().any(|interface| link.holds(interface)))
        });
        fate(is_attached, self.lifetime)
    }

    /// Warns if the lifetime of the pins may differ from what `fate` reports.
    pub(super) fn warn(&self) {
        if self.links.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        match self.lifetime {
            Lifetime::Host | Lifetime::Container => {}
            Lifetime::Mounts => tracing::warn!(
                "the program is detached when the last process in this mount namespace ends: its \
                 pins are in a file system that is mounted nowhere else"
            ),
            Lifetime::Unknown => tracing::warn!(
                "this process can't determine whether the ports stay closed: they do if the file \
                 system with the pins is mounted on the host, too"
            ),
        }
    }
}

/// Describes the state after an expired trial, from the fates of the interfaces and the protected
/// ports.
pub(super) fn after_trial(fates: &[Fate], ports: &[String]) -> String {
    if fates.contains(&Fate::Unknown) {
        return "this process can't determine whether anything is protected now: `knock-user status` \
                shows it"
            .to_owned();
    }
    match fates.contains(&Fate::Stays) {
        true => format!(
            "the previous configuration is in force again, with {}, and no daemon is running",
            list(ports)
        ),
        false => "nothing is protected now".to_owned(),
    }
}

/// Returns what happens to the interface; `is_attached` is `None` where that can't be seen.
const fn fate(is_attached: Option<bool>, lifetime: Lifetime) -> Fate {
    match (is_attached, lifetime) {
        (Some(true), Lifetime::Host | Lifetime::Container) => Fate::Stays,
        (Some(true), Lifetime::Unknown) | (None, _) => Fate::Unknown,
        (Some(true), Lifetime::Mounts) | (Some(false), _) => Fate::Ends,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_trial_is_reported_as_it_is_in_force() {
        use Fate::{Ends, Stays, Unknown};
        let back =
            "the previous configuration is in force again, with tcp/22, and no daemon is running";
        for (name, fates, expected) in [
            ("nothing before", &[Ends][..], "nothing is protected now"),
            ("no interface", &[], "nothing is protected now"),
            ("protection before", &[Stays], back),
            ("on fewer interfaces", &[Stays, Ends], back),
            (
                "unknown",
                &[Stays, Unknown],
                "this process can't determine whether anything is protected now: `knock-user status` shows it",
            ),
        ] {
            let text = after_trial(fates, &["tcp/22".to_owned()]);
            assert_eq!(text, expected, "{name}");
        }
    }

    #[test]
    fn only_what_is_seen_is_promised() {
        use Lifetime::{Container, Host, Mounts, Unknown};
        for (name, is_attached, lifetime, expected) in [
            ("on the host", Some(true), Host, Fate::Stays),
            ("in a container", Some(true), Container, Fate::Stays),
            ("a bpffs of its own", Some(true), Mounts, Fate::Ends),
            ("unknown mounts", Some(true), Unknown, Fate::Unknown),
            ("detached", Some(false), Host, Fate::Ends),
            ("detached, unknown mounts", Some(false), Unknown, Fate::Ends),
            ("links that can't be read", None, Host, Fate::Unknown),
        ] {
            assert_eq!(fate(is_attached, lifetime), expected, "{name}");
        }
    }
}
