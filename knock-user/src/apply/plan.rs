//! Reads and checks a configuration of the command line before anything is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use knock_sequence::Knock;

use crate::model::settings::Prefix;
use crate::{
    apply::options::{AttachOptions, Run},
    compile::{self, Conflict, Input, Previous, Tables},
    config::{self, Checked},
    host::{Host, Reading, addresses::Link, clock},
    interfaces::guards,
    model::{
        problem::Misuse,
        settings::{Door, Effect, Exempt, Sequences, Settings},
    },
};

/// A configuration that was read and checked on this host.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file that it was read from.
    pub path: PathBuf,
    /// The checked settings.
    pub checked: Checked,
    /// Warnings, one line each.
    pub warnings: Vec<String>,
    pub(super) host: Host,
}

impl Plan {
    /// Reads and checks the configuration that the command line names.
    ///
    /// # Errors
    /// A [`config::Problems`] with all faults of the file, or the error of another step.
    pub fn read(run: &Run) -> Result<Self> {
        Self::of(run, config::read(&run.config)?)
    }

    /// Reads and checks the configuration again for a reload.
    ///
    /// # Errors
    /// As for [`Plan::read`], or the file is a pipe, which can be read only once.
    pub fn read_again(run: &Run) -> Result<Self> {
        Self::of(run, config::read_again(&run.config)?)
    }

    /// Checks a configuration whose text was kept from an earlier start or reload.
    ///
    /// # Errors
    /// It protects nothing and runs nothing, or this host's listening sockets can't be listed.
    pub fn from_stored(run: &Run, checked: Checked) -> Result<Self> {
        Self::of(run, checked)
    }

    fn of(run: &Run, checked: Checked) -> Result<Self> {
        checked.has_effect()?;
        let mut host = Host::inspect().context("listing the ports on which this host listens")?;
        guards::note(&mut host.links);
        let interfaces = interfaces_of(run, &checked);
        let warnings = checked
            .warnings(&host)
            .into_iter()
            .chain(checked.file_warnings())
            .chain(checked.surroundings(&host, interfaces))
            .map(|warning| warning.render_in("warning", &checked.file));
        let dry_run_warning = (run.dry_run && checked.settings.has_handshakes()).then(|| {
            "a dry run sends no replies, so doors with verify = \"handshake\" can't be opened: \
             try those with --confirm"
                .to_owned()
        });
        Ok(Self {
            path: run.config.clone(),
            warnings: warnings.chain(dry_run_warning).collect(),
            checked,
            host,
        })
    }

    /// Returns warnings about access that the configuration does not cover, given these interfaces
    /// and addresses.
    pub fn surroundings(&self, links: Vec<Link>, run: &Run) -> Vec<String> {
        self.checked
            .surroundings(&self.host_with(links), interfaces_of(run, &self.checked))
            .into_iter()
            .map(|warning| warning.render_in("warning", &self.checked.file))
            .collect()
    }

    /// Returns a text that names the interfaces through which unauthorized sources reach the host, given
    /// these interfaces and addresses.
    pub fn unprotected(&self, links: Vec<Link>, run: &Run) -> Option<String> {
        self.checked
            .unprotected(&self.host_with(links), interfaces_of(run, &self.checked))
    }

    /// Returns texts about ports that are translated to protected ones, given these interfaces and
    /// addresses, and about translation rules that can't be read.
    pub fn translated(&self, links: Vec<Link>) -> Vec<String> {
        self.checked.translated(&self.host_with(links))
    }

    fn host_with(&self, links: Vec<Link>) -> Host {
        Host {
            links,
            ..self.host.clone()
        }
    }

    /// Returns the ports that are exempt because the host listens on them, by the latest look; none
    /// unless `exempt = "listening"`.
    pub fn open_ports(&self) -> Option<BTreeSet<Knock>> {
        if self.settings().exempt != Exempt::Listening {
            return None;
        }
        let mut open = self.host.open_ports();
        // This port is exempt regardless of which process listens there.
        let index = self.settings().next_line.map(|index| index.port());
        open.retain(|knock| Some(knock.port) != index);
        Some(open)
    }

    /// Stores the ports on which the host listens now.
    pub fn set_served(&mut self, served: BTreeSet<Knock>) {
        self.host.served = served;
    }

    /// Returns the rules that translate ports, as read last.
    pub const fn rules(&self) -> &Reading {
        &self.host.rules
    }

    /// Stores the rules that translate ports now.
    pub fn set_rules(&mut self, rules: Reading) {
        self.host.rules = rules;
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.checked.settings
    }

    /// Returns a gateway that a prefix covers.
    pub fn gateway_in(&self, prefix: Prefix) -> Option<IpAddr> {
        let mut gateways = self.host.gateways.iter();
        gateways.find(|gateway| prefix.has(**gateway)).copied()
    }

    /// Compiles the configuration again with other sequences of its dynamic doors; all else keeps
    /// its value in these tables.
    ///
    /// # Errors
    /// The sequences conflict.
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
            // Decoys keep their ports.
            draw: &mut || 0,
            sequences,
            before: Some(Previous { tables, now_ms }),
        };
        compile::compile(self.settings(), &mut input)
    }

    /// Returns the interfaces to protect: those of the command line, or else of the file.
    ///
    /// # Errors
    /// Neither names one, which is a [`Misuse`].
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

    /// Returns the attach options of the command line and the configuration.
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

    /// Returns the ports that each door opens or closes, by door name.
    pub fn ports_by_door(&self) -> BTreeMap<String, Vec<String>> {
        let ports = |door: &Door| {
            let (Effect::Open(ports) | Effect::Close(ports)) = &door.effect;
            (
                door.name.clone(),
                ports.iter().map(ToString::to_string).collect(),
            )
        };
        self.settings().doors.iter().map(ports).collect()
    }
}

/// Returns the aya-log level of the program: 4 is debug, 5 trace.
const fn log_level(verbose: u8) -> u8 {
    match verbose {
        0 => 0,
        1 => 4,
        _ => 5,
    }
}

/// Returns the interfaces of the command line, or else of the configuration.
fn interfaces_of<'a>(run: &'a Run, checked: &'a Checked) -> &'a [String] {
    match run.interfaces.as_slice() {
        [] => &checked.settings.interfaces,
        named => named,
    }
}
