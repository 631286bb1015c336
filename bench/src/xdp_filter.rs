//! `xdp-filter` of xdp-tools, on an interface of ours.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramFd, loaded_programs};
use knock_tests::{namespace::Namespace, pins::attached_programs};

/// What it is loaded with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FilterFeatures {
    /// Ports of TCP.
    Tcp,
    /// Everything that it can do, its default.
    All,
}

impl FilterFeatures {
    /// Both.
    pub const EACH: [Self; 2] = [Self::Tcp, Self::All];

    /// Returns its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "xdp-filter -f tcp",
            Self::All => "xdp-filter, all features",
        }
    }

    const fn flags(self) -> &'static str {
        match self {
            Self::Tcp => "-f tcp",
            Self::All => "",
        }
    }
}

/// Has it deny tcp/22 on an interface.
///
/// # Panics
/// It fails; the error has its output.
pub fn deny_ssh(namespace: &Namespace, link: &str, features: FilterFeatures) {
    let flags = features.flags();
    // It keeps its maps below /sys/fs/bpf: this mount is its own and goes away with the shell.
    let script = format!(
        "mount -t bpf bpf /sys/fs/bpf && xdp-filter load {link} {flags} -p allow \
         && xdp-filter port 22 -m dst -p tcp"
    );
    namespace.run("unshare", &["--mount", "sh", "-c", &script]);
}

/// Returns the only program that is attached in a namespace.
///
/// # Errors
/// There is none, or another, or the kernel does not hand it out.
pub fn program(namespace: &Namespace) -> Result<ProgramFd> {
    let attached = attached_programs(namespace);
    ensure!(attached.len() == 1, "not one program but {attached:?}");
    let mut programs = loaded_programs().flatten();
    let program = programs.find(|program| attached.contains(&program.id()));
    Ok(program.context("the attached program is gone")?.fd()?)
}
