//! Builds kernel objects, by hand (`cargo xtask build-ebpf`) and from build scripts; keeps one with the code.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Cmd, Shell};

mod btf_ext;
#[path = "../../knock-user/build/kept.rs"]
mod kept;
pub mod record;
mod strip;

#[cfg(feature = "cli")]
pub(crate) use kept::sha256;

use crate::{
    network,
    object::{self, ObjectFacts},
    setup::{self, Kit},
    shell, toolchain,
};

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "ebpf";

/// A package that is built for the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    binary: &'static str,
    /// The environment variable with the object's path, for a crate whose build script calls [`embed_or_exit`].
    variable: &'static str,
    /// The paths of its sources.
    directories: &'static [&'static str],
    check: fn(&[u8]) -> Result<ObjectFacts>,
}

/// The XDP program.
pub const PROGRAM: Package = Package {
    name: "knock-ebpf",
    binary: "knock",
    variable: "KNOCK_OBJECT",
    directories: &["knock-ebpf", "knock-common"],
    check: object::check,
};

/// The programs with which the XDP program is compared; they are not installed.
pub const BASELINES: Package = Package {
    name: "knock-bench-ebpf",
    binary: "baselines",
    variable: "BASELINES_OBJECT",
    directories: &["bench/ebpf", "knock-ebpf", "knock-common"],
    check: object::check_baselines,
};

/// A built and checked kernel object.
#[derive(Debug)]
pub struct Built {
    /// The ELF file, without debug information. Beside it, without the extension, is the one with it.
    pub path: PathBuf,
    /// Compiler and linker with their versions.
    pub compiler: String,
    /// Its size.
    pub bytes: usize,
    /// Its content.
    pub facts: ObjectFacts,
}

/// Returns the directory in which `cargo xtask` builds the object: one of its own below the workspace's target
/// directory, since two cargos that share a directory wait for each other.
pub fn target_dir() -> PathBuf {
    shell::target_dir().join("ebpf")
}

/// Builds the object of a package in the shell's directory, a workspace, into `target_dir`; checks and strips it.
///
/// # Errors
/// It does not build, or the verifier would reject it.
pub fn build(sh: &Shell, kit: &Kit, package: &Package, target_dir: &Path) -> Result<Built> {
    let cmd = for_target(
        kit.toolchain.cargo(sh).arg("build"),
        kit,
        package,
        &sh.current_dir(),
        target_dir,
    )
    .args(["--bin", package.binary]);
    let line = cmd.to_string();
    // The standard output of a build script is for directives to cargo.
    let mut child = Command::from(cmd)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running `{line}`"))?;
    let mut sign = None;
    for printed in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|pipe| BufReader::new(pipe).lines())
    {
        let printed = printed.with_context(|| format!("reading the output of `{line}`"))?;
        eprintln!("{printed}");
        if sign.is_none() && network::is_sign(&printed) {
            sign = Some(printed);
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("waiting for `{line}`"))?;
    if let Some(sign) = sign.filter(|_| !status.success()) {
        bail!(
            "building the kernel object: {}",
            network::unreachable(&line, sign.trim())
        );
    }
    ensure!(
        status.success(),
        "building the kernel object failed: `{line}`"
    );
    let path = target_dir.join(TARGET).join(PROFILE).join(package.binary);
    stripped(&path, kit, package)
}

/// Checks a built object and strips it.
fn stripped(path: &Path, kit: &Kit, package: &Package) -> Result<Built> {
    let elf = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let facts = (package.check)(&elf).with_context(|| path.display().to_string())?;
    let compiler = kit.to_string();
    let stripped = strip::strip(&elf, &compiler).with_context(|| path.display().to_string())?;
    (package.check)(&stripped).with_context(|| format!("{}, stripped", path.display()))?;
    let path = path.with_extension("o");
    fs::write(&path, &stripped).with_context(|| format!("writing {}", path.display()))?;
    Ok(Built {
        bytes: stripped.len(),
        path,
        compiler,
        facts,
    })
}

/// Adds the arguments and variables with which a cargo command in the workspace `root` builds for the kernel.
pub fn for_target<'a>(
    cargo: Cmd<'a>,
    kit: &Kit,
    package: &Package,
    root: &Path,
    target_dir: &Path,
) -> Cmd<'a> {
    let flags = [
        // BTF gives types and source lines to the kernel and to the verifier's log.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // x86-64 and arm64 load eight octets at any address. Without this, LLVM composes such a word of its octets.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
        format!("-Clinker={}", kit.linker.path.display()),
        // The linker runs in the workspace and copies source lines of its files; the object is then the same for each
        // directory of workspace, crates and compiler.
        format!("--remap-path-prefix={}=.", root.display()),
        format!(
            "--remap-path-prefix={}=/rust",
            kit.toolchain.sources().display()
        ),
    ];
    let registries = shell::registries()
        .into_iter()
        .map(|registry| format!("--remap-path-prefix={}=/crates", registry.display()));
    let flags: Vec<_> = flags.into_iter().chain(registries).collect();
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args([
            "--package",
            package.name,
            "--target",
            TARGET,
            "--profile",
            PROFILE,
        ])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
}

/// Builds the object of a package for a build script, and passes its path to the crate in the package's variable.
///
/// Installs nothing; if something is missing, the error names `cargo xtask setup`.
pub fn embed(package: &Package) -> Result<()> {
    println!("cargo::rerun-if-env-changed={}", toolchain::ORIGIN_VARIABLE);
    let built = build_for_script(package)?;

    // A copy, so that the next build for another profile can't change it under the compiler.
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let copy = out.join(package.binary).with_extension("o");
    fs::copy(&built.path, &copy)
        .with_context(|| format!("copying {} to {}", built.path.display(), copy.display()))?;
    println!("cargo::rustc-env={}={}", package.variable, copy.display());
    Ok(())
}

/// Runs [`embed`] as the whole of a build script.
pub fn embed_or_exit(package: &Package) {
    if let Err(error) = embed(package) {
        for line in format!("{error:#}").lines() {
            println!("cargo::error={line}");
        }
        process::exit(1);
    }
}

fn build_for_script(package: &Package) -> Result<Built> {
    let sh = shell::at_root()?;
    for directory in package.directories {
        for source in ["src", "Cargo.toml"] {
            rerun_if_changed(&shell::workspace().join(directory).join(source));
        }
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        rerun_if_changed(&shell::workspace().join(file));
    }
    let kit = setup::ready(&sh)?;
    rerun_if_changed(&kit.linker.path);
    rerun_if_changed(&kit.toolchain.rustc());
    build(&sh, &kit, package, &script_target_dir()?)
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// Finds the directory from OUT_DIR, which is `target/PROFILE/build/PACKAGE-HASH/out`. All profiles share one directory
/// next to theirs: the object is the same for each, and `core` takes long to build.
fn script_target_dir() -> Result<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let outer = out.ancestors().nth(4).unwrap_or(&out);
    Ok(outer.join("ebpf"))
}
