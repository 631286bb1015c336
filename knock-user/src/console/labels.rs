//! Names in lines: doors, interfaces and attach modes.

use knock_common::GrantPrefix;

use crate::model::{
    settings::{self, Effect},
    terminal::harmless,
};

/// The properties of a door that lines show.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DoorText {
    pub(super) name: String,
    /// The number of its knocks, if constant.
    pub(super) knocks: Option<usize>,
    pub(super) ports: Vec<String>,
    /// Whether it opens its ports; otherwise it closes them.
    pub(super) opens: bool,
    /// The prefixes that its grants cover.
    pub(super) prefix: GrantPrefix,
}

impl From<&settings::Door> for DoorText {
    fn from(door: &settings::Door) -> Self {
        let (Effect::Open(ports) | Effect::Close(ports)) = &door.effect;
        Self {
            name: harmless(&door.name).into_owned(),
            knocks: door.length(),
            opens: matches!(door.effect, Effect::Open(_)),
            ports: ports.iter().map(ToString::to_string).collect(),
            prefix: door.grant_prefix,
        }
    }
}

impl DoorText {
    pub(super) fn ports_text(&self) -> String {
        self.ports.join(", ")
    }
}

/// An interface by its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NamedInterface<'a> {
    /// The name in the configuration.
    pub asked_for: &'a str,
    /// Its current name, if that differs.
    pub now: Option<&'a str>,
}

impl NamedInterface<'_> {
    /// Returns both names, for people: `enp6s18 (eth0)`.
    pub(super) fn shown(&self) -> String {
        let now = self.now.map(|now| format!(" ({now})"));
        format!("{}{}", self.asked_for, now.unwrap_or_default())
    }
}

impl<'a> From<&'a str> for NamedInterface<'a> {
    fn from(name: &'a str) -> Self {
        Self {
            asked_for: name,
            now: None,
        }
    }
}
