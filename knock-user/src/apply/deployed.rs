//! The configuration in force after a change, and the means to undo it.

use knock_common::layout::{DoorEntry, FlowKey};

use crate::{
    compile::Tables,
    interfaces::{admission::Refusal, attach::Attached},
};

/// A configuration that is attached.
#[derive(Debug)]
pub struct Deployed {
    /// The doors by number.
    pub doors: Vec<DoorEntry>,
    /// Their names; an empty name marks an unused number.
    pub names: Vec<String>,
    /// The longest time that an attempt can last, in ticks.
    pub attempt_max_ticks: u32,
    /// The interfaces that the program is attached to.
    pub attached: Vec<Attached>,
    /// The interfaces that do not exist yet.
    pub absent: Vec<String>,
    /// The interfaces that can't be attached to, by configured name. Attaching is tried again.
    pub refused: Vec<(String, Refusal)>,
    /// Ports that the previous configuration protected and this one does not.
    pub opened: Vec<String>,
    /// Existing connections to protected ports that were not recorded as flows before. They
    /// continue if connections are kept at all.
    pub found: Vec<FlowKey>,
    /// A warning about tables that keep the sizes from before.
    pub kept_sizes: Option<String>,
}

/// The state that is needed to commit a change, or to roll it back.
#[derive(Debug)]
pub(super) struct Rollback {
    pub(super) tables: Tables,
    pub(super) interfaces: Vec<String>,
    /// The numbers of the interfaces that had a program of this instance.
    pub(super) indices: Vec<u32>,
    /// Interfaces whose attach mode was switched.
    pub(super) switched: Vec<Attached>,
    /// Whether no confirmed program of this instance was attached before.
    pub(super) is_first: bool,
}
