//! Finds the parts of a configuration that are not in force.
//!
//! A *shortfall* is something that the configuration asks for and that is not so; it makes
//! `knock-user status` fail. A *note* is worth knowing and changes nothing of what is protected.
//! docs/control.md lists both.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use knock_sequence::duration::spell_short;

use super::answer::{Answer, InterfaceAnswer, Shortfall};
use crate::{
    commands, config,
    host::os_error,
    interfaces::{coverage::CoverageState, preceding},
    kernel::registry::Registry,
    model::text::about,
};

/// The kind of the shortfall that programs of other owners run before ours.
pub const PRECEDED: &str = "preceded";

/// Describes the programs of other owners that run before ours on an interface, with the cure; none if there are none.
pub fn preceded_text(interface: &InterfaceAnswer) -> Option<String> {
    let text = preceding::text(&interface.preceding)?;
    Some(format!("{}: {text}", interface.name))
}

/// The content of the maps, and what only a running process knows.
#[derive(Clone, Debug, Default)]
pub struct HealthInput {
    /// Entries of the table of grants that are in use.
    pub entries: usize,
    /// For how many grants the table has room.
    pub room: usize,
    /// Why the last reload failed, if it did.
    pub reload_failed: Option<String>,
    /// The work in progress.
    pub under_way: Option<String>,
    /// Whether the protection is to outlive the process.
    pub is_to_stay: bool,
    /// Why nothing can be pinned, if that is so.
    pub unpinned: Option<String>,
    /// Whether events can no longer be written.
    pub is_mute: bool,
    /// Why what is in force is not what was put in place last, if that is so.
    pub interrupted: Option<String>,
    /// Whether the process that there is does nothing.
    pub is_hanging: bool,
    /// Time-based doors that can't be opened yet, and in how many milliseconds they can.
    pub waiting_doors: Vec<(String, u64)>,
    /// Time-based doors whose secret file has another secret than the one in force, with that file; or
    /// why the two can't be compared.
    pub other_secrets: Vec<(String, PathBuf, Option<String>)>,
    /// Files of host keys that differ from the keys in force, or the reason why they can't be
    /// compared.
    pub other_host_keys: Vec<(PathBuf, Option<String>)>,
    /// Commands that run or wait.
    pub commands: usize,
    /// How the host is cut off from its group, if it is.
    pub cut_off: Option<String>,
    /// Notes about the host around it.
    pub notes: Vec<String>,
}

/// Returns the status with what is missing of what its configuration asks for.
#[must_use]
pub fn judged(mut status: Answer, registry: &Registry, circumstances: &HealthInput) -> Answer {
    let mut found = Findings::default();
    found.interfaces(&status);
    found.order(&status);
    found.pins(&status, circumstances);
    found.mode(&status);
    found.trial(&status, registry, circumstances);
    if let Some(because) = &circumstances.interrupted {
        found.short("interrupted", None, because.clone());
    }
    found.process(&status, registry);
    found.doors(&status);
    found.time_based_doors(circumstances);
    found.room(
        circumstances.entries,
        circumstances.room,
        status.pid.is_some(),
    );
    found.commands(circumstances.commands);
    found.configuration(registry);
    if let Some(because) = &circumstances.reload_failed {
        found.short(
            "reload-failed",
            None,
            format!(
                "the last reload failed, and the previous configuration is in force: {}",
                because.replace('\n', "; ")
            ),
        );
    }
    if let Some(text) = &circumstances.cut_off {
        found.short("cut-off", None, text.clone());
    }
    found.notes.extend(circumstances.under_way.clone());
    if circumstances.is_mute {
        let note = "standard output is closed: events are not written there";
        found.notes.push(note.to_owned());
    }
    found.notes.extend(circumstances.notes.iter().cloned());
    status.in_force = found.shortfalls.is_empty();
    status.shortfalls = found.shortfalls;
    status.notes = found.notes;
    status
}

/// Returns a shortfall of an instance as a whole.
pub fn shortfall(kind: &str, text: impl Into<String>) -> Shortfall {
    Shortfall {
        kind: kind.to_owned(),
        interface: None,
        text: text.into(),
    }
}

#[derive(Default)]
struct Findings {
    shortfalls: Vec<Shortfall>,
    notes: Vec<String>,
}

impl Findings {
    fn short(&mut self, kind: &str, interface: Option<&str>, text: String) {
        self.shortfalls.push(Shortfall {
            kind: kind.to_owned(),
            interface: interface.map(str::to_owned),
            text,
        });
    }

    fn interfaces(&mut self, status: &Answer) {
        if status.interfaces.is_empty() {
            let text = "no interface is named, so nothing is protected".to_owned();
            self.short("nothing", None, text);
        }
        for interface in status.interfaces.iter().filter(|one| !one.attached) {
            let because = interface.because.as_deref().unwrap_or("not attached");
            let is = match interface.state == CoverageState::Blocked.name() {
                true => "is blocked",
                false => "is not protected",
            };
            let known = interface.current_name.as_ref().unwrap_or(&interface.name);
            let because = about(known, because);
            let text = format!("{} {is}: {because}", interface.name);
            self.short(&interface.state, Some(&interface.name), text);
        }
    }

    /// Reports programs of other owners that decide before ours.
    fn order(&mut self, status: &Answer) {
        for interface in &status.interfaces {
            if let Some(text) = preceded_text(interface) {
                self.short(PRECEDED, Some(&interface.name), text);
            }
        }
    }

    /// Reports pins that are missing: what is not pinned ends with the process, however that ends.
    fn pins(&mut self, status: &Answer, circumstances: &HealthInput) {
        let because = circumstances.unpinned.as_deref();
        let because = because.map_or_else(String::new, |because| format!(": {because}"));
        for interface in status.interfaces.iter().filter(|one| one.ends_with_process) {
            let text = format!(
                "the protection of {} ends with the process{because}",
                interface.name
            );
            match circumstances.is_to_stay {
                true => self.short("not-pinned", Some(&interface.name), text),
                false => self.notes.push(text),
            }
        }
    }

    fn mode(&mut self, status: &Answer) {
        if status.dry_run {
            let text = "this is a dry run: nothing is dropped".to_owned();
            self.short("dry-run", None, text);
        }
    }

    /// Reports what happens to a configuration on trial: the kernel side ends one alone if nothing was in
    /// force before, and only a process restores another configuration.
    fn trial(&mut self, status: &Answer, registry: &Registry, circumstances: &HealthInput) {
        let Some(left_s) = status.trial_seconds else {
            return;
        };
        let left = spell_short(Duration::try_from_secs_f64(left_s).unwrap_or_default());
        let is_attended = status.pid.is_some() && !circumstances.is_hanging;
        let text = match (left_s > 0.0, is_attended, &registry.fallback) {
            (true, true, _) => {
                format!("on trial: rolled back in {left} unless `knock-user confirm` is run")
            }
            (true, false, None) => format!(
                "on trial: everything passes in {left}, and no process can take a confirmation; \
                 start knock-user, which continues the trial"
            ),
            (true, false, Some(_)) => format!(
                "on trial for another {left}, and no process can roll back: start knock-user, which \
                 continues the trial, or rolls back if it has expired"
            ),
            (false, _, None) => {
                "on trial: no confirmation came in time, so everything passes".to_owned()
            }
            (false, true, Some(_)) => "on trial: no confirmation came in time, and the \
                                       previous configuration is being restored"
                .to_owned(),
            (false, false, Some(_)) => "on trial: no confirmation came in time, and no process \
                                        rolls back: start knock-user"
                .to_owned(),
        };
        self.short("on-trial", None, text);
    }

    fn process(&mut self, status: &Answer, registry: &Registry) {
        if status.pid.is_some() {
            return;
        }
        for need in &registry.needs_process {
            self.short("no-process", None, format!("no process runs: {need}"));
        }
        if registry.needs_process.is_empty() {
            let note = "no process runs: grants still expire, but events are not reported and commands not run";
            self.notes.push(note.to_owned());
        }
    }

    fn doors(&mut self, status: &Answer) {
        for one_time in status.one_time.iter().filter(|one| one.next_line.is_none()) {
            let because = one_time.because.as_deref().unwrap_or("no line is left");
            let text = format!("nobody can open door {}: {because}", one_time.door);
            self.short("door-unusable", None, text);
        }
    }

    fn time_based_doors(&mut self, circumstances: &HealthInput) {
        for (file, because) in &circumstances.other_host_keys {
            let file = file.display();
            match because {
                None => self.short(
                    "secret-changed",
                    None,
                    format!(
                        "{file} has another key than the one that is in force: `knock-user reload` \
                         reads it"
                    ),
                ),
                Some(because) => self.notes.push(format!(
                    "the key of this host can't be compared with what is in force: {because}"
                )),
            }
        }
        for (door, wait_ms) in &circumstances.waiting_doors {
            let text = format!(
                "nobody can open door {door} for another {}: which of its sequences were used before \
                 is not known, so only those that begin later are good; that ends by itself",
                spell_short(Duration::from_millis(*wait_ms))
            );
            self.short("door-waits", None, text);
        }
        for (door, file, because) in &circumstances.other_secrets {
            let file = file.display();
            match because {
                None => self.short(
                    "secret-changed",
                    None,
                    format!(
                        "{file} has another secret than the one of door {door} that is in force: \
                         `knock-user reload` reads it"
                    ),
                ),
                Some(because) => self.notes.push(format!(
                    "the secret of door {door} can't be compared with what is in force: {file}: \
                     {because}"
                )),
            }
        }
    }

    /// Reports a full table of grants.
    fn room(&mut self, entries: usize, most: usize, is_served: bool) {
        if entries < most.max(1) {
            return;
        }
        let ends = match is_served {
            true => "grants end before their time to make room, except for those given by hand",
            false => "no process runs that makes room",
        };
        let text = format!(
            "the table of grants is full ({most} entries), so nobody else can open a door; {ends}: \
             `knock-user list` shows them, and `knock-user revoke` ends some"
        );
        self.short("full", None, text);
    }

    fn commands(&mut self, pending: usize) {
        if pending >= commands::WAITING_MAX {
            let text = format!(
                "{pending} commands run or wait, so on_open of others is left out: see why they take \
                 so long, and set a shorter command_timeout"
            );
            self.short("commands-left-out", None, text);
        } else if pending > commands::RUNNING_MAX {
            self.notes.push(format!(
                "{pending} commands run or wait, and {} run at the same time: later ones come late",
                commands::RUNNING_MAX
            ));
        }
    }

    fn configuration(&mut self, registry: &Registry) {
        let Some(digest) = registry.config_digest else {
            return;
        };
        let path: &Path = &registry.config;
        match config::digest_of_file(path) {
            Ok(now) if now == digest => {}
            Ok(now) if registry.rejected == Some(now) => self.short(
                "config-changed",
                None,
                format!(
                    "{} was on trial and was not confirmed, so the previous configuration is in \
                     force: `knock-user reload` puts it in force",
                    path.display()
                ),
            ),
            Ok(_) => self.short(
                "config-changed",
                None,
                format!(
                    "{} was changed after it was read: `knock-user reload` puts it in force",
                    path.display()
                ),
            ),
            Err(error) => self.notes.push(format!(
                "{} can't be compared with what is in force: {}",
                path.display(),
                os_error::plain(&error)
            )),
        }
    }
}
