//! Packages of the system: finding out what is missing, and apt-get where there is one.

use std::{cell::Cell, fs};

use anyhow::{Context as _, Result, bail};
use xshell::{Cmd, Shell};

use crate::shell;

/// A program the tests run, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const TEST_TOOLS: [Tool; 11] = [
    Tool {
        program: "ip",
        package: "iproute2",
    },
    Tool {
        program: "knockd",
        package: "knockd",
    },
    Tool {
        program: "ssh",
        package: "openssh-client",
    },
    Tool {
        program: "sshd",
        package: "openssh-server",
    },
    Tool {
        program: "nmap",
        package: "nmap",
    },
    Tool {
        program: "hping3",
        package: "hping3",
    },
    Tool {
        program: "nc",
        package: "netcat-openbsd",
    },
    Tool {
        program: "nft",
        package: "nftables",
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
    },
    Tool {
        program: "setpriv",
        package: "util-linux",
    },
    Tool {
        program: "systemd-analyze",
        package: "systemd",
    },
];

const BENCH_TOOLS: [Tool; 7] = [
    Tool {
        program: "ip",
        package: "iproute2",
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
    },
    Tool {
        program: "nft",
        package: "nftables",
    },
    Tool {
        program: "knockd",
        package: "knockd",
    },
    Tool {
        program: "fwknopd",
        package: "fwknop-server",
    },
    Tool {
        program: "fwknop",
        package: "fwknop-client",
    },
    Tool {
        program: "xdp-filter",
        package: "xdp-tools",
    },
];

/// The machine, what unpacks kernels and packs programs for it, and what the tests run there.
const MACHINE_TOOLS: [Tool; 7] = [
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
    },
    Tool {
        program: "dpkg-deb",
        package: "dpkg",
    },
    Tool {
        program: "ldd",
        package: "libc-bin",
    },
    Tool {
        program: "ip",
        package: "iproute2",
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
    },
    Tool {
        program: "nft",
        package: "nftables",
    },
];

/// Daemons that a package's installation could start.
const DAEMONS: [&str; 3] = ["knockd", "fwknopd", "sshd"];

/// Installs the programs that the tests run; one line says what was there or was done.
pub fn test_tools(apt: &Apt<'_>) -> Result<()> {
    tools(apt, "test tools", &TEST_TOOLS, "the tests run them")
}

/// Installs the peers that the firewall is measured beside.
pub fn bench_tools(apt: &Apt<'_>) -> Result<()> {
    tools(apt, "bench tools", &BENCH_TOOLS, "they are measured too")
}

/// Installs what booting other kernels takes.
pub fn machine_tools(apt: &Apt<'_>) -> Result<()> {
    tools(
        apt,
        "kernel tools",
        &MACHINE_TOOLS,
        "tests on other kernels",
    )
}

fn tools(apt: &Apt<'_>, what: &str, tools: &[Tool], why: &str) -> Result<()> {
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| shell::find_program(tool.program).is_none())
        .map(|tool| tool.package)
        .collect();
    if missing.is_empty() {
        let found: Vec<_> = tools.iter().map(|tool| tool.program).collect();
        println!("{what}: {} found", found.join(", "));
        return Ok(());
    }
    let before = DAEMONS.map(processes);
    apt.install(&missing, why)?;
    for (daemon, before) in DAEMONS.into_iter().zip(before) {
        if processes(daemon) > before {
            bail!(
                "installing {daemon} started it: stop it with `systemctl disable --now {daemon}`"
            );
        }
    }
    println!("{what}: installed {}", missing.join(", "));
    if missing.contains(&"openssh-server") {
        println!(
            "{what}: openssh-server would start with the next boot; `systemctl disable ssh` if \
             nobody shall log in"
        );
    }
    Ok(())
}

fn processes(named: &str) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("comm")).ok())
        .filter(|name| name.trim_end() == named)
        .count()
}

/// apt-get, with its package lists refreshed at most once.
pub struct Apt<'a> {
    sh: &'a Shell,
    updated: Cell<bool>,
}

impl<'a> Apt<'a> {
    /// Touches nothing yet.
    pub fn new(sh: &'a Shell) -> Self {
        Self {
            sh,
            updated: Cell::new(false),
        }
    }

    /// Whether this system has apt-get at all.
    pub fn is_here() -> bool {
        shell::find_program("apt-get").is_some()
    }

    /// Refreshes the package lists, unless that was done already.
    pub fn update(&self) -> Result<()> {
        if self.updated.replace(true) {
            return Ok(());
        }
        if !Self::is_here() {
            bail!("this system has no apt-get");
        }
        let update = self.command()?.args(["update", "-qq"]);
        shell::run_quietly(update).context("package lists: run `sudo apt-get update`")
    }

    /// Installs `packages`; an error names them and the command that would.
    pub fn install(&self, packages: &[&str], why: &str) -> Result<()> {
        let names = packages.join(" ");
        let by_hand = by_hand(&names);
        if !Self::is_here() {
            bail!("{}", missing(&names, why));
        }
        println!("packages: apt-get install {names} ({why})");
        self.update().with_context(|| format!("{names} missing"))?;
        // Nobody asked us to take packages away, such as the rustc that rustc-web conflicts with.
        let install = self
            .command()?
            .args([
                "install",
                "-qq",
                "-y",
                "--no-install-recommends",
                "--no-remove",
            ])
            .args(packages);
        shell::run_quietly(install).with_context(|| format!("{names} missing; run `{by_hand}`"))
    }

    fn command(&self) -> Result<Cmd<'a>> {
        let cmd = if shell::is_root() {
            self.sh.cmd("env")
        } else if shell::find_program("sudo").is_some() {
            self.sh.cmd("sudo").arg("env")
        } else {
            bail!(
                "apt-get needs root and there is no sudo: run `cargo xtask setup --test` as root"
            );
        };
        // Packages must not start what they install: systemctl(1) leaves that to the next boot.
        Ok(cmd.args([
            "DEBIAN_FRONTEND=noninteractive",
            "SYSTEMD_OFFLINE=1",
            "apt-get",
        ]))
    }
}

fn by_hand(names: &str) -> String {
    format!("sudo apt-get install -y {names}")
}

/// What to say where there is no apt-get.
fn missing(names: &str, why: &str) -> String {
    format!(
        "missing: {names} ({why}); this system has no apt-get: install what your distribution calls \
         these Debian packages (there: `{}`)",
        by_hand(names)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_installed_is_named_with_the_command() {
        let told = missing("nmap knockd", "the tests knock with them");
        for part in [
            "nmap knockd",
            "the tests knock with them",
            "`sudo apt-get install -y nmap knockd`",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
