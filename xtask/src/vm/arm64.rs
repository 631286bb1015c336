//! Another processor: its packages come by an apt of their own, so that those of the host stay as they are.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use xshell::Shell;

use super::unpacked;
use crate::{package::Apt, shell};

/// The packages with the programs that tests start.
const PACKAGES: [&str; 4] = ["iproute2", "busybox-static", "ethtool", "nftables"];

/// Directories of libraries, as packages name them.
const LIBRARIES: [&str; 3] = [
    "lib/aarch64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "lib/ld-linux-aarch64.so.1",
];

/// Returns a shell whose apt has the packages of the other processor.
///
/// # Errors
/// Its directories can't be written, or its lists can't be downloaded.
pub(super) fn shell(sh: &Shell) -> Result<Shell> {
    let place = unpacked::directory().join("arm64");
    for part in ["state/lists/partial", "cache/archives/partial"] {
        let part = place.join(part);
        fs::create_dir_all(&part).with_context(|| format!("making {}", part.display()))?;
    }
    let path = place.join("apt.conf");
    let at = place.display();
    let settings = format!(
        "APT::Architecture \"arm64\";\nAPT::Architectures {{ \"arm64\"; }};\nAPT::Sandbox::User \"root\";\n\
         Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n"
    );
    for (path, text) in [(&path, settings.as_str()), (&place.join("status"), "")] {
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let other = sh.clone();
    other.set_var("APT_CONFIG", &path);
    let update = other.cmd("apt-get").args(["update", "-qq"]);
    shell::run_quietly("apt-get update for arm64", update)?;
    Ok(other)
}

/// Puts the programs, with all libraries of their packages, into the directory of an image.
///
/// # Errors
/// A package is unavailable, or a file can't be copied.
pub(super) fn programs(sh: &Shell, names: &[&str], image: &Path) -> Result<()> {
    let place = unpacked::directory().join("arm64-programs");
    if !place.is_dir() {
        unpacked::unpack(sh, &Apt::new(sh), &PACKAGES, |_| true, &place)?;
    }
    for library in LIBRARIES {
        let to = image.join(library);
        let directory = to.parent().unwrap_or(image);
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let copy = sh
            .cmd("cp")
            .arg("--archive")
            .args([&place.join(library), directory]);
        shell::run_quietly("copying libraries", copy)?;
    }
    for name in names {
        let found = ["bin", "sbin", "usr/bin", "usr/sbin"]
            .map(|directory| place.join(directory).join(name))
            .into_iter()
            .find(|path| path.is_file());
        let found = found.with_context(|| format!("no package has the program {name}"))?;
        let to = image.join("bin").join(name);
        fs::copy(&found, &to).with_context(|| format!("copying {}", found.display()))?;
    }
    Ok(())
}
