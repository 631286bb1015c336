//! Loads the program, fills its maps with a configuration, and only then lets it be attached, so
//! that the first packet meets all of it.

use std::{fs, os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData, RingBuf},
    programs::{Xdp, links::FdLink, xdp::XdpLink},
};
use aya_obj::programs::XdpAttachType;
use knock_common::{Address, layout::Config};

use crate::{
    host::interface,
    kernel::{PROGRAM, bpffs, instance::Instance, maps, pins},
};

mod blocks;
mod copies;
mod copy;
mod load;
mod object;
mod tables;

use copy::Copy;
pub use copy::LoadedCopy;
pub use object::OBJECT;

pub(crate) const INCOMPLETE: &str =
    "the kernel object lacks a program: rebuild knock-user with `cargo xtask build-ebpf`";

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
    /// Whether it accepts SPA packets of users.
    has_users: bool,
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
        Ok(self.xdp()?.info()?.verified_instruction_count())
    }

    /// Returns the id of the program.
    pub fn program_id(&mut self) -> Result<u32> {
        Ok(self.xdp()?.info()?.id())
    }

    /// Returns the handle of the program by which `aya` loads and attaches it.
    pub fn xdp(&mut self) -> Result<&mut Xdp> {
        program(&mut self.ebpf)
    }

    /// Returns whether the program accepts SPA packets of users.
    pub(crate) const fn has_users(&self) -> bool {
        self.has_users
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

    /// Pins the program as that of a configuration that is not committed yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin_next(&mut self, instance: &Instance) -> Result<()> {
        let next = instance.next_program();
        pins::unlink(&next)?;
        self.xdp()?
            .pin(&next)
            .with_context(|| format!("pinning the program {}", next.display()))
    }

    /// Pins the program as that of the committed configuration, in place of the previous one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin_program(&mut self, instance: &Instance) -> Result<()> {
        let path = instance.program();
        let ports = instance.ports();
        let next_ports = instance.pins().join("next-ports");
        pins::unlink(&next_ports)?;
        maps::map(&self.ebpf, "PORTS")?
            .pin(&next_ports)
            .with_context(|| format!("pinning the map {}", next_ports.display()))?;
        fs::rename(&next_ports, &ports)
            .with_context(|| format!("pinning the map {}", ports.display()))?;
        let next = instance.next_program();
        self.pin_next(instance)?;
        fs::rename(&next, &path).with_context(|| format!("pinning the program {}", path.display()))
    }

    /// Pins shared maps whose pins were removed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin_maps(&self, instance: &Instance) -> Result<()> {
        if self.has_users {
            bpffs::ensure(&pins::replay_directory())?;
        }
        for (shared, path) in pins::places(instance, self.has_users) {
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

/// Switches a link to another program. The pin keeps the link, not this process.
pub(crate) fn give(program: &mut Xdp, link: FdLink) -> Result<()> {
    let link = program.attach_to_link(XdpLink::try_from(link)?)?;
    drop(program.take_link(link)?);
    Ok(())
}

/// Attaches the pinned program of an instance, which is that of the last committed configuration,
/// wherever a program of the instance is attached, in one step for each interface.
///
/// # Errors
/// The kernel refuses.
pub fn restore(instance: &Instance) -> Result<()> {
    let mut program = pinned(&instance.program())?;
    let all = interface::list()?;
    for link in pins::links(instance)? {
        if let Some(interface) = all.iter().find(|interface| link.holds(interface)) {
            give(&mut program, link.link)
                .with_context(|| format!("attaching the previous program to {}", interface.name))?;
        }
    }
    Ok(())
}

/// Opens a pinned program.
///
/// # Errors
/// It does not exist, or can't be opened.
pub fn pinned(path: &Path) -> Result<Xdp> {
    Xdp::from_pin(path, XdpAttachType::Interface)
        .with_context(|| format!("opening the program {}", path.display()))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf.program_mut(PROGRAM).context(INCOMPLETE)?;
    Ok(program.try_into()?)
}
