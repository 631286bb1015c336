//! The inputs of the compiler besides the settings.

use super::{stable_ids::StableIds, tables::Tables};
use crate::{host::Host, model::settings::Sequences};

/// The inputs of the compiler besides the configuration.
pub struct Input<'a> {
    /// This host.
    pub host: &'a Host,
    /// The secret key of the first-knock table: from the kernel's random numbers, kept for reloads.
    pub cell_key: [u64; 12],
    /// Numbers that are already in use.
    pub known: &'a StableIds,
    /// Random numbers to draw decoys with.
    pub draw: &'a mut dyn FnMut() -> u64,
    /// The sequences that are accepted now.
    pub sequences: &'a Sequences,
    /// The previous tables, if only sequences have changed.
    pub before: Option<Previous<'a>>,
}

/// The state that stays unchanged while sequences change.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// The tables that the maps were filled with.
    pub tables: &'a Tables,
    /// The time, in milliseconds since boot.
    pub now_ms: u64,
}
