//! `cargo xtask dist`: builds everything that is published, into `target/dist`.

mod architecture;
mod archive;
mod container;
mod packages;
mod sbom;
mod stage;
mod sums;
mod windows;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::Shell;

pub use self::{architecture::Architecture, stage::documents};
use crate::{crates, shell};

/// The programs that are published.
const PROGRAMS: [&str; 2] = ["knock-user", "knock-client"];

/// What all published files have in common.
struct Release {
    /// As in Cargo.toml.
    version: &'static str,
    /// The time of the commit in seconds, which all files get.
    date: u64,
    /// The directory of files that are not published themselves. Its name is in `knock-user/Cargo.toml`.
    stage: PathBuf,
}

impl Release {
    fn new(sh: &Shell) -> Result<Self> {
        let date = match env::var("SOURCE_DATE_EPOCH") {
            Ok(date) => date,
            Err(_) => sh
                .cmd("git")
                .args(["-c", "safe.directory=*", "log", "-1", "--format=%ct"])
                .quiet()
                .read()
                .context("the workspace is no git repository: set SOURCE_DATE_EPOCH")?,
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            date: date.trim().parse().with_context(|| {
                format!("SOURCE_DATE_EPOCH is `{date}`: set it to seconds since 1970")
            })?,
            stage: shell::workspace().join("target/stage"),
        })
    }
}

/// Finds or installs what `run` starts, before anything is built.
///
/// # Errors
/// Something can't be installed.
pub fn prepare(sh: &Shell, architectures: &[Architecture]) -> Result<()> {
    for architecture in architectures {
        architecture::get_target(sh, architecture.target())?;
    }
    architecture::get_target(sh, windows::TARGET)?;
    for program in [
        crates::CARGO_DEB,
        crates::CARGO_GENERATE_RPM,
        crates::CARGO_CYCLONEDX,
    ] {
        crates::get(sh, program)?;
    }
    Ok(())
}

/// Builds everything; returns the directory.
///
/// # Errors
/// A program fails, or a file can't be read or written.
pub fn run(sh: &Shell, architectures: &[Architecture]) -> Result<PathBuf> {
    let release = Release::new(sh)?;
    let to = shell::target_dir().join("dist");
    for directory in [&release.stage, &to] {
        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("removing {}", directory.display()))?;
        }
        sh.create_dir(directory)?;
    }
    let prefix = release.stage.join("usr");
    stage::fill(sh, &prefix)?;
    let mut programs = Vec::new();
    for &architecture in architectures {
        let built = architecture.build(sh)?;
        for program in PROGRAMS {
            copy(sh, built.join(program), prefix.join("bin"))?;
        }
        packages::deb(sh, &release, architecture, &to)?;
        packages::rpm(sh, &release, architecture, &to)?;
        tarballs(sh, &release, architecture, &prefix, &to)?;
        programs.push((architecture, built));
    }
    let images: Vec<_> = programs
        .iter()
        .map(|(architecture, built)| (*architecture, built.as_path()))
        .collect();
    let image = to.join(format!("knock-{}-oci.tar.gz", release.version));
    windows::write(sh, &release, &to)?;
    container::write(sh, &release, &images, &image)?;
    sbom::write(sh, &release, &to)?;
    sums::write(&to)?;
    Ok(to)
}

/// Writes one archive with everything, to unpack below a prefix such as `/usr/local`, and one with the client.
fn tarballs(
    sh: &Shell,
    release: &Release,
    architecture: Architecture,
    prefix: &Path,
    to: &Path,
) -> Result<()> {
    let machine = architecture.linux();
    for name in ["knock", "knock-client"] {
        let name = format!("{name}-{}-{machine}-linux", release.version);
        let root = release.stage.join(&name);
        let is_client = name.starts_with("knock-client");
        for path in files(prefix)? {
            let below = path.strip_prefix(prefix).unwrap_or(&path);
            let text = below.to_string_lossy();
            let is_of_client = text.contains("knock-client") || text.contains("LICENSE");
            if is_client && !is_of_client {
                continue;
            }
            let directory = below.parent().unwrap_or(below);
            copy(sh, path.clone(), root.join(directory))?;
        }
        if !is_client {
            // The unit of the repository names /usr/local, where an archive is unpacked.
            sh.copy_file("dist/knock-user.service", root.join("lib/systemd/system"))?;
            copy(
                sh,
                "dist/seq.toml".into(),
                root.join("share/doc/knock/examples"),
            )?;
        }
        let archive = to.join(format!("{name}.tar.gz"));
        archive::tarball(sh, &release.stage, &name, release.date, &archive)?;
    }
    Ok(())
}

/// All files below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let reading = || format!("reading {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.push(path);
            }
        }
    }
    Ok(files)
}

fn copy(sh: &Shell, file: PathBuf, directory: PathBuf) -> Result<()> {
    sh.create_dir(&directory)?;
    sh.copy_file(file, directory)?;
    Ok(())
}
