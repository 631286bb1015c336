//! Numbers for the names of other hosts, so that entries of the ledger are small.

use std::collections::BTreeMap;

use crate::ledger::HostId;

/// The hosts that have opened or closed a door here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    ids: BTreeMap<String, HostId>,
}

impl Hosts {
    /// Returns the number of a host, and whether it is a new one. Beyond 65 535 hosts, the last number means several.
    pub(super) fn id(&mut self, name: &str) -> (HostId, bool) {
        if let Some(&id) = self.ids.get(name) {
            return (id, false);
        }
        let id = HostId(u16::try_from(self.ids.len()).unwrap_or(u16::MAX));
        self.ids.insert(name.to_owned(), id);
        (id, true)
    }

    /// Returns the names of hosts, by number.
    pub(crate) fn names(&self) -> BTreeMap<HostId, &str> {
        self.ids
            .iter()
            .map(|(name, &id)| (id, name.as_str()))
            .collect()
    }
}
