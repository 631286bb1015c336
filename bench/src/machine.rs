//! Where and when figures are from.

use std::{fmt, fs};

use anyhow::{Context as _, Result};
use jiff::Zoned;
use nix::sys::utsname::uname;

/// A machine at a time.
#[derive(Clone, Debug)]
pub struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    date: String,
}

impl Machine {
    /// This one, now.
    ///
    /// # Errors
    /// The kernel does not say what it is.
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

    /// What keeps the kernel from being as fast as the machine, as it says itself.
    pub fn mitigation() -> String {
        let path = "/sys/devices/system/cpu/vulnerabilities/spectre_v2";
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().to_owned()
    }
}

impl fmt::Display for Machine {
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
