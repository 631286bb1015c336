//! Loads the program and fills its maps with a configuration.

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfError,
    maps::{Array, MapError},
};
use knock_common::layout::{BUCKETS, Config, Features, FromKey, LOCKOUT_BUCKETS, WAYS};

use super::{LoadOptions, XdpProgram, copy::Copy, entries::entry, loader::loader, object::object};
use crate::{
    compile::Tables,
    host::{clock, random},
    kernel::{bpffs, entry::Entry, maps, pins},
    model::{
        octets,
        table_sizes::{SizedTable, TableSizes, Uses},
    },
};

impl XdpProgram {
    /// Loads the program and writes a configuration into its maps, without attaching it.
    ///
    /// # Errors
    /// The kernel refuses a map or the program (the error has the verifier's last lines), or a
    /// pinned map has another shape.
    pub fn load(tables: &Tables, options: LoadOptions<'_>) -> Result<Self> {
        Self::create(tables, options)?.complete(tables, options.entries)
    }

    /// Makes the maps and pins those that are shared; the program is loaded by [`CreatedMaps::complete`], which takes
    /// longer and leaves nothing behind if the process ends meanwhile.
    ///
    /// # Errors
    /// As for [`XdpProgram::load`].
    pub fn create(tables: &Tables, options: LoadOptions<'_>) -> Result<CreatedMaps> {
        let features = [
            (options.dry_run, Features::DRY_RUN),
            (options.confirm_by_ms.is_some(), Features::CONFIRM),
            (options.log_level != 0, Features::LOG),
            (options.loopback, Features::LOOPBACK),
        ];
        let features = features
            .into_iter()
            .filter_map(|(is_used, feature)| is_used.then_some(feature))
            .fold(tables.features, Features::with);
        let uses = Uses {
            lockouts: features.has(Features::LOCKOUT),
            users: features.has(Features::SPA),
        };
        let sizes = match options.instance {
            Some(instance) => {
                pins::check(instance, uses)?;
                pins::sizes(instance, uses, options.sizes)?
            }
            None => options.sizes,
        };
        let entries = |table| pins::entries(table, sizes.get(table));
        // Without lockouts nothing is written there.
        let lockout_buckets = match uses.lockouts {
            true => entries(SizedTable::Failures) - 1,
            false => 1,
        };
        let config = Config {
            confirm_by_ms: options.confirm_by_ms.unwrap_or(u64::MAX),
            first_knocks_shift: shift(BUCKETS, entries(SizedTable::FirstKnocks)),
            lockouts_shift: shift(LOCKOUT_BUCKETS, lockout_buckets),
            ..tables.config
        };
        let mut loader = loader()?;
        loader
            .override_global("FEATURES", &features.0, true)
            .override_global("AYA_LOG_LEVEL", &options.log_level, false)
            .map_max_entries("NODES", tables.room.nodes.max(1))
            .map_max_entries("EDGES", tables.room.edges.max(1))
            .map_max_entries("DOORS", tables.room.doors.max(1))
            .map_max_entries("OTP", capacity(&tables.otp))
            .map_max_entries("SPA_KEYS", capacity(&tables.spa.keys))
            .map_max_entries("SPA_MAY", capacity(&tables.spa.may));
        for table in SizedTable::ALL {
            loader.map_max_entries(table.map(), entries(table));
        }
        loader.map_max_entries(SizedTable::Failures.map(), lockout_buckets + 1);
        if !uses.users {
            for shape in pins::REPLAY {
                loader.map_max_entries(shape.name, 1);
            }
        }
        if let Some(instance) = options.instance {
            if uses.users {
                bpffs::ensure(&pins::replay_directory())?;
            }
            for (shape, path) in pins::places(instance, uses) {
                loader.map_pin_path(shape.name, path);
            }
        }
        let object = object()?;
        let mut ebpf = loader
            .load(bytemuck::cast_slice(&object))
            .map_err(|error| not_made(error, &sizes, uses))?;
        if features.has(Features::LOCKOUT) {
            draw_lockout_key(&mut ebpf, lockout_buckets)?;
        }
        Ok(CreatedMaps(Self {
            ebpf,
            events: None,
            copy: Copy::Absent,
            answers: (features.has(Features::ANSWERS) || features.has(Features::SPA))
                && !options.dry_run,
            loopback: options.loopback,
            uses,
            sizes,
            config,
            drawn: None,
            has_blocks: false,
        }))
    }
}

/// The maps of a program that is not loaded yet; those of the configuration are empty.
#[derive(Debug)]
pub struct CreatedMaps(XdpProgram);

impl CreatedMaps {
    /// Writes the configuration into the maps, and loads these programs of the object; the XDP program for Ethernet if
    /// there are none.
    ///
    /// # Errors
    /// The kernel refuses the program (the error has the verifier's last lines), or a map can't be written.
    pub fn complete(self, tables: &Tables, entries: &[Entry]) -> Result<XdpProgram> {
        let Self(mut program) = self;
        let ebpf = &mut program.ebpf;
        fill(ebpf, tables)?;
        maps::set(ebpf, "CONFIG", [(0, program.config)])?;
        maps::set(ebpf, "WALL_CLOCK", [(0, clock::wall_ns())])?;
        let first = match entries {
            [] => &[Entry::Xdp],
            entries => entries,
        };
        for &one in first {
            entry(ebpf, one)?;
        }
        program.follow_blocks()?;
        Ok(program)
    }
}

fn fill(ebpf: &mut Ebpf, tables: &Tables) -> Result<()> {
    maps::set(ebpf, "NODES", (0..).zip(tables.nodes.iter().copied()))?;
    maps::set(ebpf, "DOORS", (0..).zip(tables.doors.iter().copied()))?;
    maps::insert(ebpf, "EDGES", tables.edge_entries())?;
    let otp = tables.otp.iter().map(|&(door, otp)| (u32::from(door), otp));
    maps::insert(ebpf, "OTP", otp)?;
    let targets = tables
        .targets
        .iter()
        .map(|&(address, target_id)| (address, u32::from(target_id)));
    maps::insert(ebpf, "TARGETS", targets)?;
    let prefixes = tables.trust.iter().map(|&(address, bits)| (bits, address));
    maps::insert_prefixes(ebpf, "TRUST", prefixes)?;
    let prefixes = tables.block.iter().map(|&(address, bits)| (bits, address));
    maps::insert_prefixes(ebpf, "BLOCK", prefixes)?;
    let prefixes = tables.from.iter().map(|&(door, source, bits)| {
        let door = door.into();
        (FromKey::DOOR_BITS + bits, FromKey { door, source })
    });
    maps::insert_prefixes(ebpf, "FROM", prefixes)?;
    let spa = &tables.spa;
    maps::set(ebpf, "SPA_GATES", (0..).zip(spa.gates.iter().copied()))?;
    maps::insert(ebpf, "SPA_KEYS", spa.keys.iter().copied())?;
    maps::insert(ebpf, "SPA_MAY", spa.may.iter().copied())?;
    let fwknop_keys = spa.fwknop_keys.iter().copied();
    maps::set(ebpf, "FWKNOP_KEYS", (0..).zip(fwknop_keys))?;
    maps::set(ebpf, "PORTS", tables.port_entries())
}

/// Returns how often a table of `most` buckets is halved to have this many.
fn shift(most: u32, buckets: u32) -> u32 {
    most.ilog2().saturating_sub(buckets.max(1).ilog2())
}

/// Returns the error if the maps can't be made; without memory for them, with the cure.
fn not_made(error: EbpfError, sizes: &TableSizes, uses: Uses) -> anyhow::Error {
    let has_no_memory = matches!(&error, EbpfError::MapError(MapError::CreateError { io_error, .. })
        if io_error.raw_os_error() == Some(nix::libc::ENOMEM));
    match has_no_memory {
        true => anyhow!(
            "the kernel has no memory for the tables, which take {}: write less in `[limits]`, as in memory = \
             \"16MB\", or give this service more (MemoryMax= of its unit, --memory of its container)",
            octets::spell(sizes.octets(uses))
        ),
        false => anyhow::Error::new(error).context("creating the maps"),
    }
}

/// Returns the capacity of a map with these entries; a map has room for one at least.
fn capacity<T>(entries: &[T]) -> u32 {
    u32::try_from(entries.len()).unwrap_or(u32::MAX).max(1)
}

/// Draws the key of the lockouts, unless the map existed before: its content depends on the key.
fn draw_lockout_key(ebpf: &mut Ebpf, last: u32) -> Result<()> {
    let is_drawn = {
        let map = maps::map(ebpf, "LOCKOUTS")?;
        let lockouts = Array::<_, [u64; WAYS]>::try_from(map)?;
        lockouts
            .get(&last, 0)
            .context("reading the key of the lockouts")?
            != [0; WAYS]
    };
    if is_drawn {
        return Ok(());
    }
    let key: [u64; WAYS] = random::key()?;
    maps::set(ebpf, "LOCKOUTS", [(last, key)])
}
