//! The doors that the group opens.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use anyhow::{Context as _, Result};
use knock_common::{Address, GrantPrefix};

use super::{super::state::Daemon, link::FleetLink};
use crate::model::{prefix::Prefix, problem::Misuse};

impl<W: Write> Daemon<W> {
    /// Returns this host in its group.
    ///
    /// # Errors
    /// It is in none.
    pub(crate) fn group(&self) -> Result<&FleetLink> {
        self.fleet.as_ref().context(
            "this host is in no group: add [fleet] to its configuration, or leave out --group",
        )
    }

    /// Checks that the group opens a door.
    ///
    /// # Errors
    /// This host is in no group, or the door is its own.
    pub(crate) fn shared(&self, door: &str) -> Result<()> {
        let fleet = self.group()?;
        let settings = self.settings();
        let found = settings.doors.iter().find(|own| own.name == door);
        match found {
            Some(found) if !settings.is_shared(found) => Err(Misuse(format!(
                "door {door} is one of this host alone, and not of the group {}: leave out --group",
                fleet.settings.group
            ))
            .into()),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns what grants of the doors of the group cover.
    pub(super) fn covered_by_doors(&self) -> BTreeMap<String, GrantPrefix> {
        let settings = self.settings();
        let doors = settings
            .doors
            .iter()
            .filter(|door| settings.is_shared(door));
        doors
            .map(|door| (door.name.clone(), door.grant_prefix))
            .collect()
    }

    /// Returns the names of the doors that the group opens.
    pub(in crate::daemon) fn shared_doors(&self) -> BTreeSet<String> {
        let settings = self.settings();
        let doors = settings
            .doors
            .iter()
            .filter(|door| settings.is_shared(door));
        doors.map(|door| door.name.clone()).collect()
    }

    /// Returns the number of a door that the group opens; none if this host has no such door.
    pub(super) fn number_in_group(&self, name: &str) -> Option<u16> {
        let settings = self.settings();
        let door = settings.doors.iter().find(|door| door.name == name)?;
        let number = self.protection.registry().numbers.doors.get(name)?;
        settings.is_shared(door).then_some(*number)
    }

    /// Returns the name of a shared door with a number, and what a grant of it covers for a source.
    pub(super) fn shared_door(&self, source: Address, number: u16) -> Option<(String, Prefix)> {
        let door = self.door(number)?;
        let is_shared = self.settings().is_shared(door);
        is_shared.then(|| {
            (
                door.name.clone(),
                Prefix::covered(source, door.grant_prefix),
            )
        })
    }
}
