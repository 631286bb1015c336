//! Finds the doors of a configuration by their numbers in the maps.

use std::collections::HashMap;

use crate::{
    console::DoorText,
    model::settings::{Door, Settings},
};

/// The index in the configuration of each door, by number.
pub(super) struct DoorsByNumber(Vec<Option<usize>>);

impl DoorsByNumber {
    /// Makes the list from the doors' names by number; an empty name marks a number without a door.
    pub(super) fn new(settings: &Settings, names: &[String]) -> Self {
        let doors = settings.doors.iter().enumerate();
        let places: HashMap<_, _> = doors
            .map(|(place, door)| (door.name.as_str(), place))
            .collect();
        let place = |name: &String| places.get(name.as_str()).copied();
        Self(names.iter().map(place).collect())
    }

    /// Returns the door with a number.
    pub(super) fn get<'s>(&self, settings: &'s Settings, number: u16) -> Option<&'s Door> {
        let place = *self.0.get(usize::from(number))?;
        settings.doors.get(place?)
    }

    /// Returns the doors as the console prints them, by number.
    pub(super) fn texts(&self, settings: &Settings) -> Vec<DoorText> {
        let door = |place: &Option<usize>| settings.doors.get((*place)?).map(DoorText::from);
        self.0
            .iter()
            .map(|place| door(place).unwrap_or_default())
            .collect()
    }
}
