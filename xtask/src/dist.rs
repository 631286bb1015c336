//! `cargo xtask dist`: builds everything that is published, into `target/dist`.

mod architecture;
mod archive;
mod container;
mod fleet;
mod packages;
mod placeholders;
mod sbom;
mod sizes;
mod stage;
mod sums;
mod windows;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result};
use xshell::Shell;

pub(crate) use self::architecture::get_target;
pub use self::{
    architecture::{Architecture, Build},
    stage::documents,
};
use crate::{crates, shell};

/// The programs that are published.
const PROGRAMS: [&str; 2] = ["knock-user", "knock-client"];

/// The package whose manifest lists the files of the package `knock`.
const KNOCK: &str = "knock-user";

/// The version of the packages that tests upgrade from.
pub const EARLIER: &str = "0.0.9";

/// The common facts of all published files.
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
                .context("the workspace is not a git repository: set SOURCE_DATE_EPOCH")?,
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
    prepare_packages(sh, architectures)?;
    prepare_windows(sh)?;
    crates::get(sh, crates::CARGO_CYCLONEDX)
}

/// Finds or installs what `windows_client` needs, besides MinGW.
///
/// # Errors
/// It can't be installed.
pub fn prepare_windows(sh: &Shell) -> Result<()> {
    get_target(sh, windows::TARGET)
}

/// Builds the client for Windows; returns its path.
///
/// # Errors
/// It does not build.
pub fn windows_client(sh: &Shell) -> Result<PathBuf> {
    windows::build(sh)
}

/// Finds or installs what `for_tests` starts, before anything is built.
///
/// # Errors
/// Something can't be installed.
pub fn prepare_tests(sh: &Shell) -> Result<()> {
    prepare_packages(sh, &[Architecture::Amd64])
}

fn prepare_packages(sh: &Shell, architectures: &[Architecture]) -> Result<()> {
    for architecture in architectures {
        architecture.prepare(sh)?;
    }
    for program in [crates::CARGO_DEB, crates::CARGO_GENERATE_RPM] {
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
    let build = Build::Published;
    let image = for_linux(sh, &release, architectures, build, &[None], &to)?;
    windows::write(sh, &release, &to)?;
    image.write(sh, &release, &to)?;
    sbom::write(sh, &release, &to)?;
    sums::write(&to)?;
    placeholders::report(&sh.current_dir())?;
    Ok(to)
}

/// Builds what tests install on this machine's processor, and packages of an earlier version from which they upgrade,
/// once in a run, whose stages all want the same build; returns the directory. The programs are the same in both
/// versions.
///
/// # Errors
/// A program fails, or a file can't be read or written.
pub fn for_tests(sh: &Shell, build: Build) -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(directory) = BUILT.get() {
        return Ok(directory.clone());
    }
    let release = Release::new(sh)?;
    let to = shell::target_dir().join("packages");
    let image = for_linux(
        sh,
        &release,
        &[Architecture::Amd64],
        build,
        &[None, Some(EARLIER)],
        &to,
    )?;
    image.write(sh, &release, &to)?;
    // `run` leaves it for whoever builds the image of dist/container.
    sh.remove_path(&release.stage)?;
    Ok(BUILT.get_or_init(|| to).clone())
}

/// Builds packages and archives for Linux in an empty directory; returns what the container image is made of. A version
/// other than that of the programs is for packages alone.
fn for_linux(
    sh: &Shell,
    release: &Release,
    architectures: &[Architecture],
    build: Build,
    versions: &[Option<&str>],
    to: &Path,
) -> Result<Image> {
    for directory in [release.stage.as_path(), to] {
        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("removing {}", directory.display()))?;
        }
        sh.create_dir(directory)?;
    }
    let prefix = release.stage.join("usr");
    stage::fill(sh, &prefix, &fleet::prefix(release))?;
    let mut programs = Vec::new();
    for &architecture in architectures {
        let built = architecture.build(sh, build)?;
        for program in PROGRAMS {
            copy(sh, built.join(program), prefix.join("bin"))?;
        }
        for version in versions {
            packages::deb(sh, release, KNOCK, architecture, *version, to)?;
            packages::rpm(sh, release, KNOCK, architecture, *version, to)?;
        }
        fleet::write(sh, release, architecture, build, versions, to)?;
        if build == Build::Published {
            sizes::check(architecture, &built)?;
        }
        tarballs(sh, release, architecture, &prefix, to)?;
        programs.push((architecture, built));
    }
    Ok(Image(programs))
}

/// The programs of each architecture.
struct Image(Vec<(Architecture, PathBuf)>);

impl Image {
    fn write(&self, sh: &Shell, release: &Release, to: &Path) -> Result<()> {
        let programs = self.0.iter();
        let programs: Vec<_> = programs
            .map(|(architecture, built)| (*architecture, built.as_path()))
            .collect();
        let path = to.join(format!("knock-{}-oci.tar.gz", release.version));
        container::write(sh, release, &programs, &path)
    }
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
                root.join("share/doc/knock/dist"),
            )?;
        }
        let archive = to.join(format!("{name}.tar.gz"));
        archive::tarball(sh, &release.stage, &name, release.date, &archive)?;
    }
    Ok(())
}

/// Returns all files below a directory.
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
