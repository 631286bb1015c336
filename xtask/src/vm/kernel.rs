//! Finds Debian's kernel packages, and unpacks them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use xshell::Shell;

use crate::{package::Apt, shell};

const PREFIX: &str = "linux-image-";
/// The flavour for virtual machines, a third of the size of the one for all hardware.
const SUFFIX: &str = "-cloud-amd64";

/// A kernel package, unpacked.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As in `6.1.0-56-cloud-amd64`.
    version: String,
    directory: PathBuf,
}

impl Kernel {
    /// The version without the flavour, as in `6.1.0-56`.
    pub(super) fn release(&self) -> &str {
        self.version.strip_suffix(SUFFIX).unwrap_or(&self.version)
    }

    /// The bootable image.
    pub(super) fn image(&self) -> PathBuf {
        self.directory
            .join(format!("boot/vmlinuz-{}", self.version))
    }

    /// The directory of its modules, and the one to which they belong.
    pub(super) fn modules(&self) -> (PathBuf, PathBuf) {
        let place = Path::new("lib/modules").join(&self.version);
        (self.directory.join(&place), place)
    }

    fn at(package: &str) -> Self {
        Self {
            version: package.strip_prefix(PREFIX).unwrap_or(package).to_owned(),
            directory: directory().join(package),
        }
    }

    fn is_here(&self) -> bool {
        self.directory.is_dir()
    }
}

/// The directory that is kept from one run to the next.
pub(super) fn directory() -> PathBuf {
    shell::target_dir().join("kernels")
}

/// Finds or downloads the newest kernel of a series such as `6.1`, and prints a line about it.
pub(super) fn get(sh: &Shell, apt: &Apt<'_>, series: &str) -> Result<Kernel> {
    match newest_here(sh, apt, series) {
        Ok(kernel) => Ok(kernel),
        // An older one is better than none.
        Err(why) => match kept(series) {
            Some(kernel) => {
                println!("kernel {series}: {} as before: {why:#}", kernel.release());
                Ok(kernel)
            }
            None => Err(why.context(format!("kernel {series}"))),
        },
    }
}

fn newest_here(sh: &Shell, apt: &Apt<'_>, series: &str) -> Result<Kernel> {
    if let Some(package) = known(sh, series) {
        let kernel = Kernel::at(&package);
        if kernel.is_here() {
            println!("kernel {series}: {} found", kernel.release());
            return Ok(kernel);
        }
        if let Ok(kernel) = download(apt, &package) {
            println!("kernel {series}: downloaded {}", kernel.release());
            return Ok(kernel);
        }
    }
    // The package lists are missing, or older than what the archive has kept.
    apt.update();
    let Some(package) = known(sh, series) else {
        if let Some(why) = apt.stale() {
            bail!(why);
        }
        bail!(
            "apt knows no package {PREFIX}{series}.*{SUFFIX} (`apt-cache pkgnames {PREFIX}{series}`); \
             Debian 12 with its security updates has 6.1 and 6.12"
        );
    };
    let kernel = download(apt, &package)
        .with_context(|| format!("{package} is missing; run `apt-get download {package}`"))?;
    println!("kernel {series}: downloaded {}", kernel.release());
    Ok(kernel)
}

/// The newest package that apt knows.
fn known(sh: &Shell, series: &str) -> Option<String> {
    let names = sh
        .cmd("apt-cache")
        .args(["pkgnames", &format!("{PREFIX}{series}")])
        .quiet()
        .ignore_stderr()
        .read()
        .unwrap_or_default();
    newest(series, names.lines()).map(str::to_owned)
}

/// The newest that was downloaded.
fn kept(series: &str) -> Option<Kernel> {
    let names: Vec<_> = fs::read_dir(directory())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    newest(series, names.iter().map(String::as_str)).map(Kernel::at)
}

/// The package of a series with the highest version; not those of debug symbols, nor unsigned ones.
fn newest<'a>(series: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let version = |name: &'a str| {
        let version = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let rest = version.strip_prefix(series)?;
        // 6.1 is not the beginning of 6.12, and `6.12-cloud-amd64` is a name without a version.
        let is_whole = rest.is_empty() && series.matches('.').count() > 1;
        (is_whole || rest.starts_with(['.', '-', '+'])).then(|| numbers(version))
    };
    names
        .filter_map(|name| Some((version(name)?, name)))
        .max()
        .map(|(_, name)| name)
}

/// The numbers in a version; what is between them does not matter within a series.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn download(apt: &Apt<'_>, package: &str) -> Result<Kernel> {
    let kernel = Kernel::at(package);
    let cache = directory();
    // An interruption must not leave a directory that looks complete.
    let half = cache.join("half");
    remove(&half)?;
    fs::create_dir_all(&half).with_context(|| format!("making {}", half.display()))?;
    let here = Shell::new().context("starting a shell")?;
    here.change_dir(&half);
    apt.download(&here, &[package])?;
    let archive = fs::read_dir(&half)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|is| is == "deb"));
    let archive = archive.context("apt-get downloaded nothing")?;
    let unpack = here.cmd("dpkg-deb").arg("-x").args([&archive, &half]);
    shell::run_quietly("unpacking a kernel", unpack)?;
    fs::remove_file(&archive)?;
    index_modules(&here, &kernel.version)?;
    fs::rename(&half, &kernel.directory)
        .with_context(|| format!("keeping {}", kernel.directory.display()))?;
    Ok(kernel)
}

/// Unpacks the modules, and lists which needs which: a package leaves that to its installation.
fn index_modules(sh: &Shell, version: &str) -> Result<()> {
    let unpack = "find lib/modules -name '*.ko.xz' -exec busybox unxz {} +";
    shell::run_quietly("unpacking modules", sh.cmd("sh").args(["-c", unpack]))?;
    let depmod = sh.cmd("busybox").args(["depmod", "-b", ".", version]);
    shell::run_quietly("listing modules", depmod)
}

pub(super) fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("removing {}", directory.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_series_is_chosen() {
        let names = [
            "linux-image-6.1-cloud-amd64-dbg",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-rt-amd64",
            "linux-image-6.12-cloud-amd64",
        ];
        let table = [
            ("6.1", Some("linux-image-6.1.0-56-cloud-amd64")),
            ("6.12", Some("linux-image-6.12.117+deb12-cloud-amd64")),
            ("6.12.9", Some("linux-image-6.12.9+deb12-cloud-amd64")),
            ("6.1.0-9", Some("linux-image-6.1.0-9-cloud-amd64")),
            ("6.6", None),
            ("6", Some("linux-image-6.12.117+deb12-cloud-amd64")),
        ];
        for (series, expected) in table {
            assert_eq!(newest(series, names.into_iter()), expected, "{series}");
        }
    }
}
