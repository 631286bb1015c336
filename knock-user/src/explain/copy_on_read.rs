//! The environment of the judge: copies in memory over the live maps.

use std::cell::{Cell, RefCell};

use anyhow::Result;
use bytemuck::Pod;
use knock_common::{
    Address,
    layout::{Config, Features, FlowKey, LOCKOUT_BUCKETS},
    sim::{BackingMaps, LockoutKey, Overlay},
};

use super::{live::Live, query::Known};

/// An environment in which the judge may write: each entry is copied on first use, and only copies
/// change.
pub(super) type CopyOnRead<'a, L> = Overlay<LiveMaps<'a, L>>;

/// Creates an environment in memory over the live maps.
pub(super) fn over<'a, L: Live>(live: &'a L, known: &Known<'_>) -> CopyOnRead<'a, L> {
    let below = LiveMaps {
        live: Some(live),
        failure: RefCell::default(),
    };
    let has_lockouts = known.features.has(Features::LOCKOUT);
    let config: Config = below.element("CONFIG", 0).unwrap_or_default();
    let last = LOCKOUT_BUCKETS >> (config.lockouts_shift & 31);
    let key = has_lockouts.then(|| below.element("LOCKOUTS", last));
    CopyOnRead {
        features: known.features,
        now: Cell::new(known.now.nanos()),
        config,
        lockout_key: key.flatten().map(LockoutKey).unwrap_or_default(),
        below,
        ..CopyOnRead::default()
    }
}

/// The live maps, and the first error of reading them.
pub(super) struct LiveMaps<'a, L> {
    live: Option<&'a L>,
    failure: RefCell<Option<anyhow::Error>>,
}

impl<L> Default for LiveMaps<'_, L> {
    fn default() -> Self {
        Self {
            live: None,
            failure: RefCell::default(),
        }
    }
}

impl<L: Live> LiveMaps<'_, L> {
    /// Returns an error if a map could not be read.
    pub(super) fn check(&self) -> Result<()> {
        match self.failure.borrow_mut().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Returns the flows.
    ///
    /// # Errors
    /// Returns an error if they can't be read.
    pub(super) fn flows(&self) -> Result<Vec<(FlowKey, u64)>> {
        self.live.map_or(Ok(Vec::new()), Live::flows)
    }

    fn read<T>(&self, read: impl FnOnce(&L) -> Result<T>) -> Option<T> {
        match read(self.live?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                None
            }
        }
    }
}

impl<L: Live> BackingMaps for LiveMaps<'_, L> {
    fn element<V: Pod>(&self, map: &'static str, index: u32) -> Option<V> {
        self.read(|live| live.element(map, index)).flatten()
    }

    fn entry<K: Pod, V: Pod>(&self, map: &'static str, key: &K) -> Option<V> {
        self.read(|live| live.entry(map, *key)).flatten()
    }

    fn has_prefix_of(&self, map: &'static str, address: Address) -> bool {
        let has = self.read(|live| live.has_prefix_of(map, address));
        has.unwrap_or(false)
    }

    fn longest_prefix<K: Pod, V: Pod>(&self, map: &'static str, key: &K) -> Option<V> {
        self.read(|live| live.longest_prefix(map, *key)).flatten()
    }
}
