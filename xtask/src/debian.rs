//! Pristine Debian systems: mmdebstrap creates them, and each is kept below `target` while it is unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::Shell;

use crate::shell;

const SUITE: &str = "bookworm";

/// A system, by its packages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System {
    /// The directory that it is created in, below the one of its user.
    pub(crate) name: &'static str,
    /// The packages besides the essential ones, separated by commas.
    pub(crate) packages: &'static str,
}

/// The system need not survive a power cut, and without syncing dpkg is several times faster.
const DPKG: &str = "force-unsafe-io";

/// The source of packages if the host has no setting.
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// The host's settings of apt.
const APT_SETTINGS: [&str; 5] = [
    "Acquire::http",
    "Acquire::https",
    "Acquire::Check-",
    "Acquire::Retries",
    "Acquire::Force",
];

/// Creates the system or takes the existing one; returns its path. Needs root and mmdebstrap.
///
/// # Errors
/// mmdebstrap fails, or a directory can't be written.
pub(crate) fn get(sh: &Shell, base: &Path, system: System) -> Result<PathBuf> {
    let System { name, packages } = system;
    let root = base.join(name);
    let recipe = recipe(sh, packages);
    let mark = base.join(format!("{name}.recipe"));
    if is_pristine(sh, &root, &mark, &recipe) {
        println!(
            "Debian 12: the pristine system in {} is unchanged",
            root.display()
        );
        return Ok(root);
    }
    if root.exists() {
        println!(
            "Debian 12: {} is not pristine, or of another recipe",
            root.display()
        );
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    fs::create_dir_all(base).with_context(|| format!("making {}", base.display()))?;
    println!("Debian 12: making a pristine system in {}", root.display());
    let make = sh
        .cmd("mmdebstrap")
        .arg("--variant=minbase")
        .arg(format!("--dpkgopt={DPKG}"))
        .arg(format!("--include={packages}"))
        .args(
            recipe
                .settings
                .iter()
                .map(|line| format!("--aptopt={line}")),
        )
        .args([SUITE.as_ref(), root.as_os_str()])
        .args(&recipe.sources);
    // As root, because it would otherwise choose a mode without root.
    let made = shell::run_quietly("mmdebstrap", make.arg("--mode=root"));
    if made.is_err() && root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    made?;
    fs::write(&mark, recipe.text()).with_context(|| format!("writing {}", mark.display()))?;
    Ok(root)
}

/// Returns whether it was made by this recipe and nothing in it has changed since.
fn is_pristine(sh: &Shell, root: &Path, mark: &Path, recipe: &Recipe) -> bool {
    if fs::read_to_string(mark).ok() != Some(recipe.text()) {
        return false;
    }
    let changed = sh
        .cmd("find")
        .arg(root)
        .arg("-cnewer")
        .arg(mark)
        .args(["-print", "-quit"]);
    changed
        .quiet()
        .read()
        .is_ok_and(|changed| changed.is_empty())
}

/// The inputs on which the system depends.
struct Recipe {
    packages: &'static str,
    sources: Vec<String>,
    settings: Vec<String>,
}

impl Recipe {
    fn text(&self) -> String {
        let lines = [&self.sources[..], &self.settings[..]].concat();
        format!("{}\n{DPKG}\n{}\n", self.packages, lines.join("\n"))
    }
}

fn recipe(sh: &Shell, packages: &'static str) -> Recipe {
    let (mut main, mut security) = (MIRROR.to_owned(), SECURITY.to_owned());
    for address in host_addresses() {
        let path = address.trim_end_matches('/');
        if path.ends_with("/debian") {
            main = path.to_owned();
        } else if path.ends_with("/debian-security") {
            security = path.to_owned();
        }
    }
    let settings = sh.cmd("apt-config").arg("dump").quiet().ignore_stderr();
    let settings = settings.read().unwrap_or_default();
    Recipe {
        packages,
        sources: vec![
            format!("deb {main} {SUITE} main"),
            format!("deb {main} {SUITE}-updates main"),
            format!("deb {security} {SUITE}-security main"),
        ],
        settings: settings
            .lines()
            .filter(|line| APT_SETTINGS.iter().any(|start| line.starts_with(start)))
            .filter(|line| !line.ends_with(" \"\";"))
            .map(|line| line.trim_end_matches(';').to_owned())
            .collect(),
    }
}

/// Returns the sources of the host's packages.
fn host_addresses() -> Vec<String> {
    let directory = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten();
    let files = directory.map(|entry| entry.path()).filter(|path| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("list" | "sources"))
    });
    let files = [PathBuf::from("/etc/apt/sources.list")]
        .into_iter()
        .chain(files);
    files
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| addresses(&text))
        .collect()
}

/// Returns the addresses in `deb http://deb.debian.org/debian bookworm main` and in `URIs: http://…`.
fn addresses(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace)
        .filter(|word| word.contains("://"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_package_sources_are_read() {
        let table: [(&str, &[&str]); 4] = [
            (
                "deb http://a.example/debian bookworm main",
                &["http://a.example/debian"],
            ),
            (
                "deb [signed-by=/x] http://a.example/debian/ bookworm main",
                &["http://a.example/debian/"],
            ),
            (
                "Types: deb\n# http://old.example/debian\nURIs: http://a.example/debian http://b.example/x\n",
                &["http://a.example/debian", "http://b.example/x"],
            ),
            ("# deb http://a.example/debian bookworm main", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(addresses(text), expected, "{text}");
        }
    }
}
