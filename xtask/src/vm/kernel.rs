//! Finds Debian's kernel packages, and unpacks them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use xshell::Shell;

use super::unpacked::{directory, remove};
use crate::{package::Apt, shell};

const PREFIX: &str = "linux-image-";

/// The build of a kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flavour {
    /// For virtual machines: a third of the size of the one for all hardware.
    Cloud,
    /// For all hardware.
    Full,
    /// For virtual machines with another processor.
    Arm64,
}

impl Flavour {
    /// Returns the end of a package's name.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "-cloud-amd64",
            Self::Full => "-amd64",
            Self::Arm64 => "-cloud-arm64",
        }
    }

    /// Returns the series, if a version has this flavour and no other.
    fn version_of(self, version: &str) -> Option<&str> {
        let version = version.strip_suffix(self.suffix())?;
        // `6.1.0-56-rt` is of a flavour that is named before the processor.
        let last = version.rsplit('-').next().unwrap_or(version);
        last.starts_with(|c: char| c.is_ascii_digit())
            .then_some(version)
    }
}

/// A kernel package, unpacked.
#[derive(Debug)]
pub(crate) struct KernelPackage {
    /// As in `6.1.0-56-cloud-amd64`.
    version: String,
    flavour: Flavour,
    directory: PathBuf,
}

impl KernelPackage {
    /// Returns the version without the flavour, as in `6.1.0-56`, or `6.1.0-56-arm64` for another processor.
    pub(crate) fn release(&self) -> String {
        let release = self.flavour.version_of(&self.version);
        let release = release.unwrap_or(&self.version);
        match self.flavour {
            Flavour::Cloud | Flavour::Full => release.to_owned(),
            Flavour::Arm64 => format!("{release}-arm64"),
        }
    }

    /// Returns the bootable image.
    pub(crate) fn image(&self) -> PathBuf {
        self.directory
            .join(format!("boot/vmlinuz-{}", self.version))
    }

    /// Returns the directory of its modules, and the one to which they belong.
    pub(crate) fn modules(&self) -> (PathBuf, PathBuf) {
        let place = Path::new("lib/modules").join(&self.version);
        (self.directory.join(&place), place)
    }

    fn at(package: &str, flavour: Flavour) -> Self {
        Self {
            version: package.strip_prefix(PREFIX).unwrap_or(package).to_owned(),
            flavour,
            directory: directory().join(package),
        }
    }

    fn is_here(&self) -> bool {
        self.directory.is_dir()
    }
}

/// Finds or downloads the newest kernel of a series such as `6.1`, and prints a line about it.
pub(crate) fn get(
    sh: &Shell,
    apt: &Apt<'_>,
    series: &str,
    flavour: Flavour,
) -> Result<KernelPackage> {
    match newest_here(sh, apt, series, flavour) {
        Ok(kernel) => Ok(kernel),
        // An older one is better than none.
        Err(why) => match kept(series, flavour) {
            Some(kernel) => {
                println!("kernel {series}: {} as before: {why:#}", kernel.release());
                Ok(kernel)
            }
            None => Err(why.context(format!("kernel {series}"))),
        },
    }
}

fn newest_here(sh: &Shell, apt: &Apt<'_>, series: &str, flavour: Flavour) -> Result<KernelPackage> {
    if let Some(package) = known(sh, series, flavour) {
        let kernel = KernelPackage::at(&package, flavour);
        if kernel.is_here() {
            println!("kernel {series}: {} found", kernel.release());
            return Ok(kernel);
        }
        if let Ok(kernel) = download(sh, apt, &package, flavour) {
            println!("kernel {series}: downloaded {}", kernel.release());
            return Ok(kernel);
        }
    }
    // The package lists are missing, or older than what the archive has kept.
    apt.update();
    let Some(package) = known(sh, series, flavour) else {
        if let Some(why) = apt.stale() {
            bail!(why);
        }
        bail!(
            "apt knows no package {PREFIX}{series}.*{} (`apt-cache pkgnames {PREFIX}{series}`); \
             Debian 12 with its security updates has 6.1 and 6.12",
            flavour.suffix()
        );
    };
    let kernel = download(sh, apt, &package, flavour)
        .with_context(|| format!("{package} is missing; run `apt-get download {package}`"))?;
    println!("kernel {series}: downloaded {}", kernel.release());
    Ok(kernel)
}

/// Returns the newest package that apt knows.
fn known(sh: &Shell, series: &str, flavour: Flavour) -> Option<String> {
    let names = sh
        .cmd("apt-cache")
        .args(["pkgnames", &format!("{PREFIX}{series}")])
        .quiet()
        .ignore_stderr()
        .read()
        .unwrap_or_default();
    newest(series, flavour, names.lines()).map(str::to_owned)
}

/// Returns the newest that was downloaded.
fn kept(series: &str, flavour: Flavour) -> Option<KernelPackage> {
    let names: Vec<_> = fs::read_dir(directory())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let names = names.iter().map(String::as_str);
    newest(series, flavour, names).map(|package| KernelPackage::at(package, flavour))
}

/// Returns the package of a series with the highest version; not those of debug symbols, nor unsigned ones.
fn newest<'a>(
    series: &str,
    flavour: Flavour,
    names: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let version = |name: &'a str| {
        let version = flavour.version_of(name.strip_prefix(PREFIX)?)?;
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

/// Returns the numbers in a version; what is between them does not matter within a series.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn download(sh: &Shell, apt: &Apt<'_>, package: &str, flavour: Flavour) -> Result<KernelPackage> {
    let kernel = KernelPackage::at(package, flavour);
    let cache = directory();
    // An interruption must not leave a directory that looks complete.
    let half = cache.join("half");
    remove(&half)?;
    fs::create_dir_all(&half).with_context(|| format!("making {}", half.display()))?;
    let here = sh.clone();
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
            "linux-image-6.1.0-50-cloud-arm64",
        ];
        use Flavour::{Arm64, Cloud, Full};
        let table = [
            ("6.1", Cloud, Some("linux-image-6.1.0-56-cloud-amd64")),
            (
                "6.12",
                Cloud,
                Some("linux-image-6.12.117+deb12-cloud-amd64"),
            ),
            (
                "6.12.9",
                Cloud,
                Some("linux-image-6.12.9+deb12-cloud-amd64"),
            ),
            ("6.1.0-9", Cloud, Some("linux-image-6.1.0-9-cloud-amd64")),
            ("6.6", Cloud, None),
            ("6", Cloud, Some("linux-image-6.12.117+deb12-cloud-amd64")),
            ("6.1", Full, Some("linux-image-6.1.0-56-amd64")),
            ("6.12", Full, None),
            ("6.1", Arm64, Some("linux-image-6.1.0-50-cloud-arm64")),
        ];
        for (series, flavour, expected) in table {
            let found = newest(series, flavour, names.into_iter());
            assert_eq!(found, expected, "{series} {flavour:?}");
        }
    }
}
