//! Describes the machine, and the time of a measurement.

use std::{fmt, fs};

use anyhow::{Context as _, Result};
use jiff::Zoned;
use nix::sys::utsname::uname;

/// The machine and the time of a measurement.
#[derive(Clone, Debug)]
pub struct MachineInfo {
    cpu: String,
    cpus: usize,
    kernel: String,
    date: String,
}

impl MachineInfo {
    /// Describes this machine at this moment.
    ///
    /// # Errors
    /// The kernel's version can't be read.
    pub fn here() -> Result<Self> {
        let text = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let models = text.lines().filter_map(|line| line.split_once(": "));
        let models = models.filter(|(name, _)| name.trim() == "model name");
        let system = uname().context("asking for the kernel's name")?;
        Ok(Self {
            cpu: models
                .map(|(_, model)| model.to_owned())
                .next()
                .unwrap_or_else(|| system.machine().to_string_lossy().into_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: system.release().to_string_lossy().into_owned(),
            date: Zoned::now().strftime("%-d %B %Y").to_string(),
        })
    }

    /// Returns the mitigation of Spectre variant 2 that the kernel reports; it slows the kernel down.
    pub fn mitigation() -> String {
        let path = "/sys/devices/system/cpu/vulnerabilities/spectre_v2";
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().to_owned()
    }
}

impl fmt::Display for MachineInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu,
            cpus,
            kernel,
            date,
        } = self;
        write!(f, "{cpus} CPUs {cpu}, Linux {kernel}, {date}")
    }
}
