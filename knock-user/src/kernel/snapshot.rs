//! Reads tables of a running instance outside the loop of its daemon: reading a full one takes a tenth
//! of a second.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, Map, MapData};
use bytemuck::Pod;
use knock_common::{
    automaton::Progress,
    layout::{
        ALLOW_MAX, Config, FLOWS_MAX, FlowKey, GrantKey, LOCKOUT_BUCKETS, PROGRESS_MAX,
        ProgressKey, WAYS,
    },
    lockout::Failures,
    time::Moment,
};

use super::{
    maps::{self, Counters, Plain, Table},
    program::XdpProgram,
};

/// Tables that can be read in another thread.
#[derive(Debug)]
pub struct Snapshot {
    counters: Map,
    allow: Map,
    flows: Map,
    progress: Map,
    lockouts: Map,
    config: Config,
}

impl Snapshot {
    /// Opens the tables of a loaded program again.
    ///
    /// # Errors
    /// This process has no room for more descriptors.
    pub fn of(program: &mut XdpProgram) -> Result<Self> {
        let config = *program.config();
        let ebpf = program.ebpf();
        let copy = |name, kind: fn(MapData) -> Map| {
            maps::map(ebpf, name).and_then(|map| copied(map, name, kind))
        };
        Ok(Self {
            counters: copy("COUNTERS", Map::PerCpuArray)?,
            allow: copy("ALLOW", Map::HashMap)?,
            flows: copy("FLOWS", Map::LruHashMap)?,
            progress: copy("PROGRESS", Map::LruHashMap)?,
            lockouts: copy("LOCKOUTS", Map::Array)?,
            config,
        })
    }

    /// Returns the counters by number.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn counters(&self) -> Result<Vec<u64>> {
        Counters::of(&self.counters)?.all()
    }

    /// Returns how many entries the table of grants has, expired ones among them.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn grants(&self) -> Result<usize> {
        Ok(table::<GrantKey>(&self.allow)?
            .keys()
            .take(ALLOW_MAX as usize)
            .count())
    }

    /// Returns the entries of the table of flows.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn flows(&self) -> Result<Vec<(FlowKey, u64)>> {
        Ok(maps::entries(&table(&self.flows)?, FLOWS_MAX))
    }

    /// Returns how many entries the table of attempts has, and how many of them are not older than
    /// this, in ticks.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn attempts(&self, most_ticks: u32, now: Moment) -> Result<(usize, usize)> {
        let entries = maps::entries(&table::<ProgressKey>(&self.progress)?, PROGRESS_MAX);
        let is_alive = |(_, word): &&(_, u64)| {
            let Progress { node, last, .. } = Progress::from_word(*word);
            node != Progress::NONE.node && now.tick().since(last) <= most_ticks
        };
        Ok((entries.len(), entries.iter().filter(is_alive).count()))
    }

    /// Returns how many sources are locked out.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn locked_out(&self, now: Moment) -> Result<usize> {
        let buckets =
            Array::<_, Plain<[u64; WAYS]>>::try_from(&self.lockouts).context("map LOCKOUTS")?;
        let mut count: usize = 0;
        for index in 0..LOCKOUT_BUCKETS >> (self.config.lockouts_shift & 31) {
            let Plain(cells) = buckets.get(&index, 0).context("reading the map LOCKOUTS")?;
            let locks = |cell: &&u64| {
                let failures = Failures::from_word(**cell);
                **cell != 0
                    && failures.left_ms(now, &self.config) > 0
                    && u32::from(failures.count) >= self.config.lockout_failures
            };
            count = count.saturating_add(cells.iter().filter(locks).count());
        }
        Ok(count)
    }
}

fn table<K: Pod>(map: &Map) -> Result<Table<&MapData, K, u64>> {
    Ok(Table::try_from(map)?)
}

/// Opens a map again, for another thread.
fn copied(map: &Map, name: &str, kind: fn(MapData) -> Map) -> Result<Map> {
    let (Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) | Map::Array(data)) =
        map
    else {
        bail!("the map {name} has another type than this version expects");
    };
    let again = data.fd().as_fd().try_clone_to_owned();
    let again = again
        .map_err(anyhow::Error::from)
        .and_then(|fd| Ok(MapData::from_fd(fd)?));
    Ok(kind(again.with_context(|| {
        format!("opening the map {name} again")
    })?))
}
