//! Warns of what the configuration does not cover on this host; interfaces and addresses may appear
//! after the start, for example while the host boots.

use std::{io::Write, thread};

use anyhow::Result;
use tokio::sync::oneshot;

use super::state::Daemon;
use crate::{
    host::{self, Reading, clock},
    interfaces::guards,
};

/// How often the host's open ports are read, in milliseconds.
const LOOK_MS: u64 = 5_000;

impl<W: Write> Daemon<W> {
    /// Warns of what changed interfaces, addresses or rules leave uncovered, once each.
    pub(super) fn follow_surroundings(&mut self) -> Result<()> {
        let mut links = host::links()?;
        guards::note(&mut links);
        let are_others = std::mem::take(&mut self.surroundings.are_others);
        if links == self.surroundings.links && !are_others {
            return Ok(());
        }
        self.surroundings.links.clone_from(&links);
        let warnings = self.plan.surroundings(links, &self.run);
        for warning in warnings {
            if !self.plan.warnings.contains(&warning)
                && self.surroundings.reported.insert(warning.clone())
            {
                tracing::warn!("{warning}");
            }
        }
        Ok(())
    }

    /// Updates the exempt ports from the host's open ports, and follows rules that translate ports.
    pub(super) fn follow_host(&mut self) -> Result<()> {
        let now_ms = clock::boot_ms();
        // A configuration that is being prepared reads the host itself.
        if now_ms < self.host_at_ms.saturating_add(LOOK_MS) || self.pending.is_some() {
            return Ok(());
        }
        self.host_at_ms = now_ms;
        let before = self.plan.open_ports();
        if before.is_some()
            // The start warned of a list that can't be read.
            && let Ok(served) = host::served()
        {
            self.plan.set_served(served);
        }
        let has_other_rules = self.follow_rules();
        if let Some((before, now)) = before.zip(self.plan.open_ports())
            && before != now
        {
            self.protection.program().follow_served(&before, &now)?;
        }
        match has_other_rules {
            true => self.follow_surroundings(),
            false => Ok(()),
        }
    }

    /// Takes over rules that were read, or starts reading them if they may have changed; returns whether
    /// they have.
    fn follow_rules(&mut self) -> bool {
        if let Some(mut reading) = self.surroundings.reading.take() {
            match reading.try_recv() {
                Ok(rules) => {
                    let are_others = !self.plan.rules().says_the_same(&rules);
                    self.plan.set_rules(rules);
                    self.surroundings.are_others |= are_others;
                    return are_others;
                }
                Err(oneshot::error::TryRecvError::Empty) => {
                    self.surroundings.reading = Some(reading);
                    return false;
                }
                // The rules are read again.
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
        }
        if self.plan.rules().is_old() {
            let (done, reading) = oneshot::channel();
            self.surroundings.reading = Some(reading);
            // It runs programs, which may take long.
            thread::spawn(move || {
                // The receiver is gone if the daemon ended.
                let _ended = done.send(Reading::now());
            });
        }
        false
    }

    /// Returns notes about interfaces that are up, have addresses and are not protected at this moment,
    /// about ports that are or may be translated to protected ones, and about records that are lost at
    /// a reboot.
    pub(crate) fn host_notes(&self) -> Vec<String> {
        let mut links = host::links().unwrap_or_default();
        guards::note(&mut links);
        let translated = self.plan.translated(links.clone());
        let unprotected = self.plan.unprotected(links, &self.run);
        let volatile = self.protection.volatile();
        unprotected
            .into_iter()
            .chain(translated)
            .chain(volatile)
            .collect()
    }
}
