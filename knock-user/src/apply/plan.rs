//! From the command line to a configuration that can be put in place: everything that can be wrong
//! with it is found before anything is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use knock_sequence::Knock;
use rand::Rng as _;

use crate::{
    apply::{AttachOptions, dynamic::LiveTables, options::Run},
    compile::{self, Conflict, Input, Previous, Sequences, Tables, stable_ids::StableIds},
    config::{self, Checked},
    host::{Host, Reading, addresses::Link, clock, random, tracked},
    interfaces::guards,
    model::{
        problem::Misuse,
        settings::{Door, Effect, Exempt, Settings},
    },
    sequences::replay_cache::Floor,
};

/// A configuration of this host, read and checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it was read.
    pub path: PathBuf,
    /// What it means.
    pub checked: Checked,
    /// What is unwise about it, as lines.
    pub warnings: Vec<String>,
    host: Host,
}

impl Plan {
    /// Reads and checks the configuration that the command line names.
    ///
    /// # Errors
    /// A [`config::Problems`] with everything that is wrong with the file, or what else failed.
    pub fn read(run: &Run) -> Result<Self> {
        Self::of(run, config::read(&run.config)?)
    }

    /// Reads and checks it again, for a reload.
    ///
    /// # Errors
    /// As for [`Plan::read`]; and if it is a pipe, which has nothing more to give.
    pub fn read_again(run: &Run) -> Result<Self> {
        Self::of(run, config::read_again(&run.config)?)
    }

    /// Takes a configuration whose text was kept from an earlier start or reload.
    ///
    /// # Errors
    /// It protects nothing and runs nothing, or the listening sockets of this host can't be listed.
    pub fn of_kept(run: &Run, checked: Checked) -> Result<Self> {
        Self::of(run, checked)
    }

    fn of(run: &Run, checked: Checked) -> Result<Self> {
        checked.has_effect()?;
        let mut host = Host::inspect().context("asking the kernel what this host serves")?;
        guards::note(&mut host.links);
        let interfaces = asked_for(run, &checked);
        let warnings = checked.warnings(&host).into_iter();
        let warnings = warnings.chain(checked.file_warnings());
        let warnings = warnings.chain(checked.surroundings(&host, interfaces));
        let warnings = warnings.map(|warning| warning.told("warning", &checked.file));
        let unseen = (run.dry_run && checked.settings.has_handshakes()).then(|| {
            "a dry run answers nothing, so nobody gets through doors with verify = \"handshake\": \
             try those with --confirm"
                .to_owned()
        });
        Ok(Self {
            path: run.config.clone(),
            warnings: warnings.chain(unseen).collect(),
            checked,
            host,
        })
    }

    /// What it does not reach where the host has these interfaces and addresses, as lines.
    pub fn surroundings(&self, links: Vec<Link>, run: &Run) -> Vec<String> {
        let found = self
            .checked
            .surroundings(&self.host_with(links), asked_for(run, &self.checked));
        let lines = found.into_iter();
        lines
            .map(|warning| warning.told("warning", &self.checked.file))
            .collect()
    }

    /// The interfaces through which strangers reach the host without a knock, in words, where it has
    /// these interfaces and addresses.
    pub fn unprotected(&self, links: Vec<Link>, run: &Run) -> Option<String> {
        self.checked
            .unprotected(&self.host_with(links), asked_for(run, &self.checked))
    }

    /// Ports that lead to protected ones where the host has these interfaces and addresses, and rules
    /// that can't be read, in words.
    pub fn translated(&self, links: Vec<Link>) -> Vec<String> {
        self.checked.translated(&self.host_with(links))
    }

    fn host_with(&self, links: Vec<Link>) -> Host {
        Host {
            links,
            ..self.host.clone()
        }
    }

    /// The ports that are exempt because they are open on this host, as it was looked at last; none if
    /// that is not why ports are exempt.
    pub fn open_ports(&self) -> Option<BTreeSet<Knock>> {
        if self.settings().exempt != Exempt::Listening {
            return None;
        }
        let mut open = self.host.open_ports();
        // It is exempt whoever listens there.
        let index = self.settings().next_line.map(|index| index.port());
        open.retain(|knock| Some(knock.port) != index);
        Some(open)
    }

    /// Takes note of the ports on which the host listens now.
    pub fn set_served(&mut self, served: BTreeSet<Knock>) {
        self.host.served = served;
    }

    /// The rules that translate ports, as they were read last.
    pub const fn rules(&self) -> &Reading {
        &self.host.rules
    }

    /// Takes note of the rules that translate ports now.
    pub fn set_rules(&mut self, rules: Reading) {
        self.host.rules = rules;
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.checked.settings
    }

    /// A warning of connections to others that a first start cuts.
    pub fn cuts(&self) -> Option<String> {
        if !self.host.forwards {
            return None;
        }
        let protected = compile::protected(self.settings());
        tracked::warning(&protected, |address| self.host.has_address(address))
    }

    /// Whether an address is that of a gateway.
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        self.host.gateways.contains(&address)
    }

    /// Compiles it with the sequences that its doors have now; what is known keeps its number.
    /// Of time-based ones, those are left out that may have been used before `floor`.
    ///
    /// # Errors
    /// A [`config::Problems`] with what this host can't do of it.
    pub fn compile(&self, known: &StableIds, floor: Floor) -> Result<(LiveTables, Tables)> {
        let cell_key = random::key()?;
        let mut decoys = rand::rng();
        let mut draw = || decoys.next_u64();
        let settings = self.settings();
        LiveTables::compile(settings, floor, |sequences| {
            let mut input = Input {
                host: &self.host,
                cell_key,
                known,
                draw: &mut draw,
                sequences,
                before: None,
            };
            compile::compile(settings, &mut input)
        })
        .map_err(|conflicts| self.checked.problems(conflicts).into())
    }

    /// Compiles it again with other sequences of the doors that have changing ones; everything else
    /// stays as it is in these tables.
    ///
    /// # Errors
    /// The sequences do not go together.
    pub fn recompile(
        &self,
        sequences: &Sequences,
        tables: &Tables,
        now_ms: u64,
    ) -> Result<Tables, Vec<Conflict>> {
        let mut input = Input {
            host: &self.host,
            cell_key: tables.config.cell_key,
            known: &tables.numbers,
            // Decoys stay where they were drawn.
            draw: &mut || 0,
            sequences,
            before: Some(Previous { tables, now_ms }),
        };
        compile::compile(self.settings(), &mut input)
    }

    /// The interfaces that are to be protected: those of the command line, or of the file.
    ///
    /// # Errors
    /// There is none, which is a [`Misuse`].
    pub fn interfaces(&self, run: &Run) -> Result<Vec<String>> {
        let mut names = match run.interfaces.as_slice() {
            [] => self.checked.settings.interfaces.clone(),
            named => named.to_vec(),
        };
        if names.is_empty() {
            return Err(Misuse(format!(
                "no interface to protect: name one with --iface, or with `interfaces = [\"eth0\"]` in {}",
                self.checked.file
            ))
            .into());
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// How the command line wants it to be put in place.
    pub fn attach_options(&self, run: &Run) -> AttachOptions {
        AttachOptions {
            mode: run.mode.unwrap_or(self.checked.settings.mode),
            dry_run: run.dry_run,
            log_level: log_level(run.verbose),
            may_be_absent: run.wait_for_interfaces,
            confirm_by_ms: run.confirm.map(clock::boot_ms_after),
            rejected: None,
        }
    }

    /// The ports that each door opens or closes, by its name.
    pub fn ports_by_door(&self) -> BTreeMap<String, Vec<String>> {
        let doors = self.checked.settings.doors.iter();
        let ports = |door: &Door| {
            let (Effect::Open(ports) | Effect::Close(ports)) = &door.effect;
            (
                door.name.clone(),
                ports.iter().map(ToString::to_string).collect(),
            )
        };
        doors.map(ports).collect()
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

/// The interfaces that the command line names, or else the configuration.
fn asked_for<'a>(run: &'a Run, checked: &'a Checked) -> &'a [String] {
    match run.interfaces.as_slice() {
        [] => &checked.settings.interfaces,
        named => named,
    }
}
