//! What sources have when another configuration takes the place of one: grants and connections.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Context as _, Result, bail};
use knock_common::layout::{ALLOW_MAX, FlowKey, GrantKey};

use crate::{
    apply::carry_grants::{self, Carried},
    compile::{Tables, stable_ids::StableIds},
    host::{clock, sockets},
    kernel::{maps, program::XdpProgram},
};

/// Writes the entries that existing grants need in this configuration; those that they needed stay
/// until it is settled.
pub(super) fn give(firewall: &mut XdpProgram, known: &StableIds, tables: &Tables) -> Result<()> {
    let held = firewall.grants()?;
    let Carried { write, .. } = carry_grants::grants(&held, known, tables, clock::boot_ms());
    let there: HashSet<_> = held.iter().map(|(key, _)| *key).collect();
    let more = write.keys().filter(|key| !there.contains(key)).count();
    if there.len().saturating_add(more) > ALLOW_MAX as usize {
        bail!(
            "there is no room for the grants under both configurations: {} of {ALLOW_MAX} entries \
             are in use, and {more} more are needed; `knock-user revoke` ends grants, and others \
             end by themselves",
            there.len()
        );
    }
    let sources = write.keys().map(|key| key.source);
    firewall.expect(sources.collect::<BTreeSet<_>>())?;
    let mut allow = firewall.allow()?;
    for (key, grant) in write {
        maps::raise(&mut allow, key, grant).context("writing a grant")?;
    }
    Ok(())
}

pub(super) fn remove_all(
    firewall: &mut XdpProgram,
    keys: impl IntoIterator<Item = GrantKey>,
) -> Result<()> {
    let mut allow = firewall.allow()?;
    for key in keys {
        maps::delete(&mut allow, key).context("removing a grant")?;
    }
    Ok(())
}

/// Records the connections to protected ports that exist, so that they continue if connections are
/// kept at all; returns which were not recorded before.
pub(super) fn keep_connections(firewall: &mut XdpProgram, tables: &Tables) -> Result<Vec<FlowKey>> {
    let connections = sockets::connections().unwrap_or_else(|error| {
        tracing::warn!(
            "which connections there are can't be seen ({}): those to protected ports stop \
             until their source knocks",
            crate::host::os_error::told(&error)
        );
        Vec::new()
    });
    let flows = connections
        .iter()
        .filter_map(|connection| tables.flow_of(connection));
    firewall.keep(flows.collect(), clock::boot_ms())
}
