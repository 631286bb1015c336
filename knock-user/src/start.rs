//! From the command line to a firewall that is attached: everything that can be wrong is found
//! before the first packet is judged.

use std::{fs::File, io::Read as _};

use anyhow::{Context as _, Result, bail};

use knock_common::layout::FlowKey;

use crate::{
    cli::Run,
    clock,
    compile::{self, Given, Tables},
    config::{self, Checked},
    firewall::{Attached, Firewall, Options},
    host::Host,
    interface::{self, Interface},
    privileges, sockets,
};

/// A configuration, ready to be loaded.
#[derive(Debug)]
pub struct Plan {
    /// What it means.
    pub checked: Checked,
    /// What the maps will hold.
    pub tables: Tables,
}

/// What is attached.
#[derive(Debug)]
pub struct Started {
    /// The kernel side.
    pub firewall: Firewall,
    /// Where, and how.
    pub attached: Vec<Attached>,
    /// The connections that were there before, and go on.
    pub kept: Vec<FlowKey>,
}

impl Plan {
    /// Reads, checks and compiles a configuration for this host; warnings go to `warn`.
    ///
    /// # Errors
    /// A [`config::Problems`] with everything that is wrong with the file, or what else failed.
    pub fn read(run: &Run, mut warn: impl FnMut(&str)) -> Result<Self> {
        let checked = config::read(&run.config)?;
        let host = Host::inspect().context("asking the kernel what this host serves")?;
        for warning in checked.warnings(&host) {
            warn(&warning.told("warning", &checked.file));
        }
        let mut random = Random::open()?;
        let cell_key = random.key()?;
        let mut draw = || random.next();
        let mut given = Given {
            host: &host,
            cell_key,
            draw: &mut draw,
        };
        let tables = compile::compile(&checked.settings, &mut given)
            .map_err(|conflicts| checked.problems(conflicts))?;
        Ok(Self { checked, tables })
    }

    /// Finds the interfaces, loads the program with the tables, and attaches it everywhere or
    /// nowhere.
    ///
    /// # Errors
    /// A privilege or an interface is missing, or the kernel refuses; nothing is attached then.
    pub fn start(&self, run: &Run) -> Result<Started> {
        privileges::check()?;
        let interfaces = interface::find(&self.interfaces(run)?)?;
        let dry_run = run.dry_run;
        let options = Options {
            dry_run,
            log_level: log_level(run.verbose),
        };
        let mut firewall = Firewall::load(&self.tables, options)?;
        if let Some(walked) = firewall.verified_instructions()? {
            tracing::debug!("the verifier walked {walked} instructions");
        }
        let mode = run.mode.unwrap_or(self.checked.settings.mode);
        let mut kept = self.keep_connections(&mut firewall)?;
        let attached = interfaces
            .iter()
            .map(|interface| firewall.attach(interface, mode))
            .collect::<Result<_>>()
            .context("nothing is attached")?;
        for Interface { name, .. } in interfaces.iter().filter(|interface| !interface.up) {
            tracing::warn!("{name} is down: it is protected, and stays so when it comes up");
        }
        // What was connected between the first look and the attaching.
        kept.extend(self.keep_connections(&mut firewall)?);
        if !dry_run && !self.checked.settings.established.keep && !kept.is_empty() {
            tracing::warn!(
                "{} connections to protected ports stop until their source knocks: \
                 [established] keep = false",
                kept.len()
            );
            kept.clear();
        }
        Ok(Started {
            firewall,
            attached,
            kept,
        })
    }

    /// Records the connections to protected ports that exist, so that they go on if connections are
    /// kept at all; tells which were not recorded before.
    fn keep_connections(&self, firewall: &mut Firewall) -> Result<Vec<FlowKey>> {
        let connections = sockets::connections()?;
        let flows = connections
            .iter()
            .filter_map(|connection| self.tables.flow_of(connection));
        firewall.keep(flows.collect(), clock::boot_ms())
    }

    fn interfaces(&self, run: &Run) -> Result<Vec<String>> {
        let mut names = match run.interfaces.as_slice() {
            [] => self.checked.settings.interfaces.clone(),
            named => named.to_vec(),
        };
        if names.is_empty() {
            bail!(
                "no interface to protect: name one with --iface, or with `interfaces = [\"eth0\"]` in {}",
                self.checked.file
            );
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

/// The aya-log level of the program: 4 is debug, 5 trace.
const fn log_level(verbose: u8) -> u8 {
    match verbose {
        0 => 0,
        1 => 4,
        _ => 5,
    }
}

/// The kernel's random numbers.
struct Random(File);

impl Random {
    fn open() -> Result<Self> {
        File::open("/dev/urandom")
            .map(Self)
            .context("opening /dev/urandom")
    }

    fn key(&mut self) -> Result<[u64; 12]> {
        let mut key = [0; 12];
        self.0
            .read_exact(bytemuck::bytes_of_mut(&mut key))
            .context("reading /dev/urandom")?;
        Ok(key)
    }

    /// For drawing decoys, where zero in place of an unreadable number does no harm.
    fn next(&mut self) -> u64 {
        self.key().map_or(0, |[number, ..]| number)
    }
}
