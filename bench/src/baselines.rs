//! Loads the XDP programs with which that of knock is compared, and those that generate its packets.

use std::fs::File;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{MapData, ProgramArray},
    programs::{ProgramFd, SchedClassifier, Xdp, XdpMode},
};
use knock_tests::{entry::attach_nowhere, namespace::Namespace};
use knock_user::kernel::maps;

use crate::plan::{CHOICES_MAX, PAYLOAD_MAX, PAYLOADS, Plan};

static OBJECT: &[u8] = include_bytes_aligned!(env!("BASELINES_OBJECT"));

/// The loaded object; each program is loaded when it is first needed.
pub struct Baselines {
    ebpf: Ebpf,
    /// The interfaces to which programs are attached, so that test runs begin at once.
    _namespaces: Vec<File>,
}

/// The maps of the floor programs, with a size that is allowed for each.
const FLOOR_MAPS: [(&str, u32); 8] = [
    ("FLOOR_ALLOW", 1),
    ("FLOOR_COUNTERS", 1),
    ("FLOOR_EVENTS", 4096),
    ("FLOOR_FILTER", 1),
    ("FLOOR_FIRST", 1),
    ("FLOOR_FLOWS", 1),
    ("FLOOR_PORTS", 1),
    ("FLOOR_PROGRESS", 1),
];

impl Baselines {
    /// Makes the maps, and these programs ready for test runs. The maps of the floor programs have the least size.
    pub fn load(programs: &[&str]) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for (name, size) in FLOOR_MAPS {
            loader.map_max_entries(name, size);
        }
        Self::load_with(&mut loader, programs)
    }

    /// Makes the same, with the maps of the floor programs in the sizes of the measured program's.
    pub fn load_floors(programs: &[&str]) -> Result<Self> {
        Self::load_with(&mut EbpfLoader::new(), programs)
    }

    fn load_with(loader: &mut EbpfLoader<'_>, programs: &[&str]) -> Result<Self> {
        let mut baselines = Self {
            ebpf: loader
                .load(OBJECT)
                .context("creating the maps of the baselines")?,
            _namespaces: Vec::new(),
        };
        for name in programs {
            let program = baselines.program_mut(name)?;
            program
                .load()
                .with_context(|| format!("loading the baseline {name}"))?;
            let namespace = attach_nowhere(program)?;
            baselines._namespaces.push(namespace);
        }
        Ok(baselines)
    }

    /// Loads a program and attaches it to an interface for as long as this lives.
    pub fn attach(
        &mut self,
        name: &str,
        namespace: &Namespace,
        link: &str,
        mode: XdpMode,
    ) -> Result<()> {
        let program = self.program_mut(name)?;
        program.load()?;
        let attach = || program.attach(link, mode);
        namespace
            .enter(attach)
            .with_context(|| format!("attaching {name} to {link}"))?;
        Ok(())
    }

    /// Returns a program that was loaded.
    pub fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.ebpf.program(name).with_context(|| missing(name))?;
        Ok(program.try_into()?)
    }

    /// Loads and returns a program of traffic control.
    pub fn classifier(&mut self, name: &str) -> Result<&SchedClassifier> {
        let program = self.ebpf.program_mut(name).with_context(|| missing(name))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program
            .load()
            .with_context(|| format!("loading the baseline {name}"))?;
        Ok(program)
    }

    /// Returns the loaded object.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    fn program_mut(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name).with_context(|| missing(name))?;
        Ok(program.try_into()?)
    }

    /// Sets what `vary`, `deal` and `flood` do from now on.
    pub fn plan(&mut self, plan: Plan) -> Result<()> {
        maps::set(&mut self.ebpf, "PLAN", [(0, plan)])
    }

    /// Sets the ports that a plan chooses from; they are repeated until there are as many as may be.
    pub fn choices(&mut self, ports: &[u16]) -> Result<()> {
        let choices = ports.iter().map(|port| u32::from(*port)).cycle();
        maps::set(&mut self.ebpf, "CHOICES", (0..CHOICES_MAX).zip(choices))
    }

    /// Sets the payloads that `deal` gives its packets; the first of them gets number 0.
    pub fn payloads(&mut self, payloads: &[Vec<u8>]) -> Result<()> {
        let padded = payloads.iter().map(|payload| {
            let mut padded = [0; PAYLOAD_MAX];
            let place = padded.get_mut(..payload.len());
            place
                .context("a payload is too long")?
                .copy_from_slice(payload);
            Ok(padded)
        });
        let padded = padded.collect::<Result<Vec<_>>>()?;
        ensure!(padded.len() <= PAYLOADS as usize, "too many payloads");
        maps::set(&mut self.ebpf, "DEALT", (0..).zip(padded))
    }

    /// Sets the program that gets the packets of `jump`, `vary` and `deal`.
    pub fn subject(&mut self, program: &ProgramFd) -> Result<()> {
        let mut subject =
            ProgramArray::<&mut MapData>::try_from(maps::map_mut(&mut self.ebpf, "SUBJECT")?)?;
        subject
            .set(0, program, 0)
            .context("handing packets on to another program")
    }

    /// Frames that `flood` sent until now.
    pub fn sent(&self) -> Result<u64> {
        let sent = aya::maps::PerCpuArray::<_, u64>::try_from(maps::map(&self.ebpf, "SENT")?)?;
        Ok(sent.get(&0, 0)?.iter().sum())
    }
}

fn missing(name: &str) -> String {
    format!("the object of the baselines has no program {name}")
}
