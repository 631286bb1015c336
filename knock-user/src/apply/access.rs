//! Carries grants and connections of sources over to another configuration.

use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, Result, bail};
use knock_common::{
    grant::Grant,
    layout::{FlowKey, GrantKey},
    packet::Protocol,
};

use crate::{
    apply::carry_grants::{self, Carried},
    compile::{Tables, stable_ids::StableIds},
    host::{clock, sockets, tracked::Packets},
    kernel::{maps, program::XdpProgram},
    model::table_sizes::SizedTable,
};

/// Writes the entries that existing grants need in this configuration. Entries of the previous
/// configuration, which had the numbers `before`, stay until the change is committed; `known` are all
/// numbers that entries may have.
pub(super) fn write_grants(
    program: &mut XdpProgram,
    before: &StableIds,
    known: &StableIds,
    tables: &Tables,
) -> Result<()> {
    let held = program.grants()?;
    let Carried { write, .. } =
        carry_grants::grants(&held, before, known, tables, clock::boot_ms());
    let there: HashMap<_, _> = held.into_iter().collect();
    let more = write.keys().filter(|key| !there.contains_key(key)).count();
    let room = program.room(SizedTable::Grants);
    if there.len().saturating_add(more) > room {
        bail!(
            "the allow map has no room for the grants of both configurations: {} of {room} \
             entries are in use, and {more} more are needed; end grants with `knock-user revoke`, \
             or wait until they expire",
            there.len()
        );
    }
    program.mark_present(write.keys().map(|key| key.source).collect::<BTreeSet<_>>())?;
    let mut allow = program.allow()?;
    for (key, grant) in write {
        // What packets have changed since the entries were read stays, such as an end before its
        // time; the second pass reads it.
        match there.get(&key) {
            Some(read) if read.until_ms < grant.until_ms || read.door != grant.door => {
                maps::replace_if(&mut allow, key, read.to_word(), grant.to_word())
            }
            Some(_) => Ok(false),
            None => maps::insert_new(&mut allow, key, grant.to_word()),
        }
        .context("writing a grant")?;
    }
    Ok(())
}

/// Removes entries, unless packets have changed them since they were read.
pub(super) fn remove_grants(
    program: &mut XdpProgram,
    entries: impl IntoIterator<Item = (GrantKey, Grant)>,
) -> Result<()> {
    let mut allow = program.allow()?;
    for (key, read) in entries {
        maps::delete_if(&mut allow, key, read.to_word()).context("removing a grant")?;
    }
    Ok(())
}

/// Records existing connections to protected ports as flows, so that they continue if connections
/// are kept at all: those of this host's sockets, and those that it forwards or translates. Returns
/// those that were not recorded before; `known` are some that were.
pub(super) fn record_connections(
    program: &mut XdpProgram,
    tables: &Tables,
    forwarded: Vec<FlowKey>,
    known: &[FlowKey],
) -> Result<Vec<FlowKey>> {
    let connections = sockets::connections().unwrap_or_else(|error| {
        tracing::warn!(
            "can't list connections ({}): those to protected ports stop until their source \
             knocks",
            crate::host::os_error::describe(&error)
        );
        Vec::new()
    });
    let own = connections.iter().filter_map(|connection| {
        tables.flow_of(&Packets {
            protocol: Protocol::Tcp,
            source: connection.peer,
            target: connection.local,
        })
    });
    // A full table forgets its oldest entries.
    let mut flows: Vec<_> = forwarded.into_iter().chain(own).collect();
    let known: HashSet<_> = known.iter().collect();
    flows.retain(|flow| !known.contains(flow));
    program.record_flows(flows, clock::boot_ms())
}
