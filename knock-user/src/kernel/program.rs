//! Loads the program, fills its maps with a configuration, and only then lets it be attached, so
//! that the first packet meets all of it.

use std::{fs, os::fd::AsFd as _};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData, RingBuf},
    programs::{Program, ProgramInfo, Xdp},
};
use knock_common::{Address, layout::Config};

use crate::{
    kernel::{PROGRAM, bpffs, entry::Entry, instance::Instance, maps, pins},
    model::table_sizes::{SizedTable, TableSizes, Uses},
};

mod blocks;
mod copies;
mod copy;
mod entries;
mod load;
mod loader;
mod object;
mod pinned;
mod tables;

use copy::Copy;
pub use copy::LoadedCopy;
pub(crate) use entries::INCOMPLETE;
pub use loader::LoaderAhead;
pub use object::object;
pub use pinned::{PinnedPrograms, Programs, give};

/// Options of loading the program.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// Whether the program judges, counts and reports packets, but drops none.
    pub dry_run: bool,
    /// The aya-log level of the program: 0 is off, 4 debug, 5 trace. Messages above it are not
    /// compiled in.
    pub log_level: u8,
    /// When the program starts to let all packets pass, in milliseconds since boot.
    pub confirm_by_ms: Option<u64>,
    /// Whether the loopback interface is protected.
    pub loopback: bool,
    /// The instance with the pinned shared maps; `None` makes maps that end with this process.
    pub instance: Option<&'a Instance>,
    /// The sizes of the tables; those that are pinned keep the size that they have.
    pub sizes: TableSizes,
    /// The programs to load at once; the XDP program for Ethernet if empty. Others are loaded when
    /// an interface needs them.
    pub entries: &'a [Entry],
}

/// The loaded program with its maps.
///
/// The pinned links of its instance keep it attached, and nothing in this process does.
#[derive(Debug)]
pub struct XdpProgram {
    ebpf: Ebpf,
    /// The map `EVENTS` once it was taken out, to pin it again.
    events: Option<MapData>,
    /// Whether it sends packets.
    answers: bool,
    /// Whether it accepts loopback addresses, on the loopback interface.
    loopback: bool,
    /// What it uses besides the tables that every program needs.
    uses: Uses,
    /// The sizes of its tables.
    sizes: TableSizes,
    /// The other loaded copy of the program.
    copy: Copy,
    /// The content of the map of this name.
    config: Config,
    /// The last period of cookie keys that was drawn.
    drawn: Option<u32>,
    /// Whether the program looks for sources that commands have blocked.
    has_blocks: bool,
}

impl XdpProgram {
    /// Returns whether packets can come from a source: the program drops addresses that no host can
    /// have.
    pub fn may_come_from(&self, source: Address) -> bool {
        source.is_host() || self.loopback && source.is_loopback()
    }

    /// Returns how many instructions the verifier walked, if the kernel reports it.
    pub fn verified_instructions(&mut self) -> Result<Option<u32>> {
        Ok(self.info()?.verified_instruction_count())
    }

    /// Returns what the kernel reports of the program; of the first one if several are loaded.
    ///
    /// # Errors
    /// None is loaded, or the kernel does not report it.
    pub fn info(&mut self) -> Result<ProgramInfo> {
        let (_, program) = self.loaded().next().context(INCOMPLETE)?;
        Ok(program.info()?)
    }

    /// Returns the handle of the XDP program by which `aya` loads and attaches it.
    pub fn xdp(&mut self) -> Result<&mut Xdp> {
        program(&mut self.ebpf)
    }

    /// Loads a program of the object, unless it is loaded.
    ///
    /// # Errors
    /// The kernel refuses it (the error has the verifier's last lines), or the object lacks it.
    pub fn load_entry(&mut self, entry: Entry) -> Result<&mut Program> {
        entries::entry(&mut self.ebpf, entry)
    }

    /// Returns the loaded programs.
    fn loaded(&mut self) -> impl Iterator<Item = (Entry, &mut Program)> {
        let loaded = self.ebpf.programs_mut().filter_map(|(name, program)| {
            let entry = Entry::ALL.into_iter().find(|entry| entry.name() == name)?;
            Some((entry, program))
        });
        loaded.filter(|(_, program)| program.fd().is_ok())
    }

    /// Returns whether the program accepts SPA packets of users.
    pub(crate) const fn has_users(&self) -> bool {
        self.uses.users
    }

    /// Returns what the program uses besides the tables that every one needs.
    pub(crate) const fn uses(&self) -> Uses {
        self.uses
    }

    /// Returns the sizes of its tables.
    pub const fn sizes(&self) -> TableSizes {
        self.sizes
    }

    /// Returns the size of a table.
    pub fn room(&self, table: SizedTable) -> usize {
        self.sizes.get(table) as usize
    }

    /// Returns whether the program sends packets.
    pub(crate) const fn answers(&self) -> bool {
        self.answers
    }

    /// Returns the content of the map `CONFIG`.
    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the loaded object with its maps.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Pins the programs as those of a configuration that is not committed yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin_next(&mut self, instance: &Instance) -> Result<()> {
        pins::forget_next(instance)?;
        for (entry, program) in self.loaded() {
            let next = instance.next_program(entry);
            program
                .pin(&next)
                .with_context(|| format!("pinning the program {}", next.display()))?;
        }
        Ok(())
    }

    /// Pins the programs as those of the committed configuration, in place of the previous ones.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin_program(&mut self, instance: &Instance) -> Result<()> {
        let ports = instance.ports();
        let next_ports = instance.pins().join("next-ports");
        pins::unlink(&next_ports)?;
        maps::map(&self.ebpf, "PORTS")?
            .pin(&next_ports)
            .with_context(|| format!("pinning the map {}", next_ports.display()))?;
        fs::rename(&next_ports, &ports)
            .with_context(|| format!("pinning the map {}", ports.display()))?;
        self.pin_next(instance)?;
        let loaded: Vec<_> = self.loaded().map(|(entry, _)| entry).collect();
        for &entry in &loaded {
            let path = instance.program(entry);
            fs::rename(instance.next_program(entry), &path)
                .with_context(|| format!("pinning the program {}", path.display()))?;
        }
        for entry in Entry::ALL {
            if !loaded.contains(&entry) {
                pins::unlink(&instance.program(entry))?;
            }
        }
        Ok(())
    }

    /// Returns whether all loaded programs are pinned as those of the committed configuration.
    pub fn is_pinned(&mut self, instance: &Instance) -> bool {
        let mut loaded = self.loaded();
        instance.ports().exists() && loaded.all(|(entry, _)| instance.program(entry).exists())
    }

    /// Pins shared maps whose pins were removed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin_maps(&self, instance: &Instance) -> Result<()> {
        if self.uses.users {
            bpffs::ensure(&pins::replay_directory())?;
        }
        for (shared, path) in pins::places(instance, self.uses) {
            if path.exists() {
                continue;
            }
            let pinned = match (self.ebpf.map(shared.name), &self.events) {
                (Some(map), _) => map.pin(&path),
                (None, Some(events)) => events.pin(&path),
                (None, None) => bail!("the object has no map {}", shared.name),
            };
            pinned.with_context(|| format!("pinning the map {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns the memory of all maps, in octets, as the kernel counts it; `None` if it does not report it.
    pub fn memory(&self) -> Option<u64> {
        let events = self.events.iter().map(|map| map.fd().as_fd());
        let maps = self
            .ebpf
            .maps()
            .filter_map(|(_, map)| maps::descriptor(map));
        maps.chain(events).map(maps::memory).sum()
    }

    /// Returns the ring buffer of events, which can be taken once.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>> {
        let map = self
            .ebpf
            .take_map("EVENTS")
            .context("the events were taken before")?;
        if let Map::RingBuf(events) = &map {
            let again = events.fd().as_fd().try_clone_to_owned();
            let again = again.context("keeping the map EVENTS")?;
            self.events = Some(MapData::from_fd(again).context("keeping the map EVENTS")?);
        }
        Ok(RingBuf::try_from(map)?)
    }
}

impl Programs for XdpProgram {
    fn has(&self, _: Entry) -> bool {
        true
    }

    fn entry(&mut self, entry: Entry) -> Result<&mut Program> {
        self.load_entry(entry)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf.program_mut(PROGRAM).context(INCOMPLETE)?;
    Ok(program.try_into()?)
}
