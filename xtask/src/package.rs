//! Installs Debian packages with apt-get, where it exists.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use xshell::{Cmd, Shell};

use crate::{network, shell};

/// apt-get, with its package lists refreshed at most once.
pub struct Apt<'a> {
    sh: &'a Shell,
    updated: Cell<bool>,
    /// Why the lists could not be refreshed, if so.
    stale: RefCell<Option<String>>,
}

impl<'a> Apt<'a> {
    /// Changes nothing yet.
    pub fn new(sh: &'a Shell) -> Self {
        Self {
            sh,
            updated: Cell::new(false),
            stale: RefCell::new(None),
        }
    }

    /// Returns whether this system has apt-get at all.
    pub fn is_here() -> bool {
        shell::find_program("apt-get").is_some()
    }

    /// Refreshes the package lists, unless that was tried already. A failure counts only if a package is then
    /// unavailable, because the broken source may be unrelated and the old lists may be enough.
    pub fn update(&self) {
        if self.updated.replace(true) {
            return;
        }
        let update = self.command().and_then(|cmd| {
            // A source that can't be reached would otherwise be a warning.
            let cmd = cmd.args(["update", "-qq", "-o", "APT::Update::Error-Mode=any"]);
            shell::run_quietly("apt-get update", cmd)
        });
        if let Err(why) = update {
            *self.stale.borrow_mut() = Some(format!("{why:#}"));
        }
    }

    /// Returns why the package lists are not fresh, if refreshing them failed.
    pub fn stale(&self) -> Option<String> {
        self.stale.borrow().clone()
    }

    /// Returns whether apt's lists, refreshed, have a package.
    pub fn has_package(&self, sh: &Shell, package: &str) -> bool {
        if !Self::is_here() {
            return false;
        }
        self.update();
        let show = sh.cmd("apt-cache").args(["show", package]).quiet();
        show.ignore_stdout().ignore_stderr().run().is_ok()
    }

    /// Installs `packages`.
    ///
    /// # Errors
    /// They can't be installed, or only by removing others: the error names them and the command that
    /// would.
    pub fn install(&self, packages: &[&str], why: &str) -> Result<()> {
        let names = packages.join(" ");
        if !Self::is_here() {
            bail!("{}", missing(&names, why));
        }
        println!("packages: apt-get install {names} ({why})");
        self.update();
        // The user did not ask to remove packages, such as the rustc with which rustc-web conflicts.
        let install = self
            .command()?
            .args(["install", "-qq", "-y"])
            .args(["--no-install-recommends", "--no-remove"])
            .args(packages);
        shell::run_quietly(&format!("apt-get install {names}"), install)
            .map_err(|error| self.with_stale(error))
            .with_context(|| format!("{names} missing; run `{}`", by_hand(&names)))
    }

    /// Downloads `packages` into the shell's directory.
    ///
    /// # Errors
    /// They are unavailable.
    pub fn download(&self, into: &Shell, packages: &[impl AsRef<std::ffi::OsStr>]) -> Result<()> {
        // As root, it would otherwise switch to a user that may not write here.
        let download = into
            .cmd("apt-get")
            .args(["-o", "APT::Sandbox::User=root", "download"])
            .args(packages);
        shell::run_quietly("apt-get download", download).map_err(|error| self.with_stale(error))
    }

    /// Adds to an error that the package lists could not be refreshed, which may have caused it.
    fn with_stale(&self, error: Error) -> Error {
        match self.stale() {
            Some(stale) if network::is_unreachable(&error) => anyhow!(stale),
            Some(stale) => error.context(stale),
            None => error,
        }
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
        Ok(cmd
            .args(["DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1"])
            // Another apt, such as unattended upgrades, ends within minutes.
            .args(["apt-get", "-o", "DPkg::Lock::Timeout=600"]))
    }
}

fn by_hand(names: &str) -> String {
    format!("sudo apt-get install -y {names}")
}

/// Returns the error on a system without apt-get.
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
    fn missing_programs_are_named_with_the_command() {
        let message = missing("nmap knockd", "the tests knock with them");
        for part in [
            "nmap knockd",
            "the tests knock with them",
            "`sudo apt-get install -y nmap knockd`",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
