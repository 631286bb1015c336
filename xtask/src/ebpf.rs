//! Building the kernel object, by hand (`cargo xtask build-ebpf`) and from knock-user's build script.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Cmd, Shell};

use crate::{
    object::{self, Facts},
    setup::{self, Kit},
    shell, toolchain,
};

/// The package with the XDP program.
pub const PACKAGE: &str = "knock-ebpf";

const BINARY: &str = "knock";
const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "ebpf";

/// Names an object built elsewhere, to embed instead of building one.
const PREBUILT_VARIABLE: &str = "KNOCK_OBJECT_PREBUILT";

/// A built and checked kernel object.
#[derive(Debug)]
pub struct Built {
    /// The ELF file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: usize,
    /// What it holds.
    pub facts: Facts,
}

/// Where `cargo xtask` builds the object: below the workspace's target directory, but apart from
/// what is in it, since two cargos that share a directory wait for each other.
pub fn target_dir() -> PathBuf {
    let outer = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    shell::workspace().join(outer).join("ebpf")
}

/// Builds the object into `target_dir` and checks it.
pub fn build(sh: &Shell, kit: &Kit, target_dir: &Path) -> Result<Built> {
    let cmd =
        for_target(kit.toolchain.cargo(sh).arg("build"), kit, target_dir).args(["--bin", BINARY]);
    let line = cmd.to_string();
    // What a build script prints to stdout are orders to cargo, and cargo has nothing to say there.
    let status = Command::from(cmd)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("running `{line}`"))?;
    ensure!(
        status.success(),
        "building the kernel object failed: `{line}`"
    );
    checked(target_dir.join(TARGET).join(PROFILE).join(BINARY))
}

/// Completes a cargo command of the kit's toolchain with what makes it build for the kernel.
pub fn for_target<'a>(cargo: Cmd<'a>, kit: &Kit, target_dir: &Path) -> Cmd<'a> {
    // BTF tells the kernel, and the verifier's log, about types and source lines.
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", kit.linker.path.display()),
    ];
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args([
            "--package",
            PACKAGE,
            "--target",
            TARGET,
            "--profile",
            PROFILE,
        ])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
}

/// For knock-user's build script: builds the object, or takes the one that
/// `KNOCK_OBJECT_PREBUILT` names, and sets `KNOCK_OBJECT` to its path for the crate.
///
/// Installs nothing; when something is missing, the error says to run `cargo xtask setup`.
pub fn embed() -> Result<()> {
    for variable in [PREBUILT_VARIABLE, toolchain::ORIGIN_VARIABLE] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let built = match env::var_os(PREBUILT_VARIABLE) {
        Some(path) => {
            let path = shell::workspace().join(path);
            rerun_if_changed(&path);
            checked(path).context(PREBUILT_VARIABLE)?
        }
        None => build_for_script()?,
    };

    // A copy, so that the next build for another profile can't change it under the compiler.
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let copy = out.join("knock.o");
    fs::copy(&built.path, &copy)
        .with_context(|| format!("copying {} to {}", built.path.display(), copy.display()))?;
    println!("cargo::rustc-env=KNOCK_OBJECT={}", copy.display());
    Ok(())
}

fn build_for_script() -> Result<Built> {
    let sh = shell::at_root()?;
    for package in [PACKAGE, "knock-common"] {
        for source in ["src", "Cargo.toml"] {
            rerun_if_changed(&shell::workspace().join(package).join(source));
        }
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        rerun_if_changed(&shell::workspace().join(file));
    }
    let kit = setup::ready(&sh)?;
    rerun_if_changed(&kit.linker.path);
    rerun_if_changed(&kit.toolchain.rustc());
    build(&sh, &kit, &script_target_dir()?)
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// OUT_DIR is `target/PROFILE/build/PACKAGE-HASH/out`. All profiles share one directory next to
/// theirs: the object is the same for each, and `core` takes its time.
fn script_target_dir() -> Result<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let outer = out.ancestors().nth(4).unwrap_or(&out);
    Ok(outer.join("ebpf"))
}

fn checked(path: PathBuf) -> Result<Built> {
    let elf = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let facts = object::check(&elf).with_context(|| path.display().to_string())?;
    Ok(Built {
        bytes: elf.len(),
        facts,
        path,
    })
}
