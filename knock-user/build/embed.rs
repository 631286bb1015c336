//! Chooses the kernel object that the crate embeds.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use miniz_oxide::deflate::compress_to_vec_zlib;

use crate::kept;

/// The strongest level of deflate.
const COMPRESSION: u8 = 10;

/// The packages whose sources are compiled for the kernel.
const SOURCES: [&str; 2] = ["knock-ebpf", "knock-common"];

/// Variables of the outer cargo that are for its own build and not for the one of the object.
const OUTER: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "TARGET",
];

/// Passes the object's path to the crate in `KNOCK_OBJECT`; an error ends the build.
pub(crate) fn or_exit() {
    if let Err(error) = embed() {
        for line in format!("{error:#}").lines() {
            println!("cargo::error={line}");
        }
        process::exit(1);
    }
}

fn embed() -> Result<()> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let directory = package.join(kept::DIRECTORY);
    rerun_if_changed(&directory);
    let object = match package.parent().filter(|root| is_workspace(root)) {
        // A package from a registry: its object belongs to it, there are no sources to compare it with.
        None => directory.join(kept::OBJECT),
        Some(root) => {
            for path in watched(root) {
                rerun_if_changed(&path);
            }
            match kept::check(root) {
                Ok(()) => directory.join(kept::OBJECT),
                Err(stale) => build(root).with_context(|| format!("{stale:#}"))?,
            }
        }
    };
    let octets = fs::read(&object).with_context(|| format!("reading {}", object.display()))?;
    let compressed = PathBuf::from(variable("OUT_DIR")?).join("knock.o.zz");
    fs::write(&compressed, compress_to_vec_zlib(&octets, COMPRESSION))
        .with_context(|| format!("writing {}", compressed.display()))?;
    println!("cargo::rustc-env=KNOCK_OBJECT={}", compressed.display());
    Ok(())
}

/// Builds the object below cargo's directory of builds, where all profiles and targets share it: the object is the same
/// for each, and `core` takes long to build.
fn build(root: &Path) -> Result<PathBuf> {
    // OUT_DIR is `target/PROFILE/build/PACKAGE-HASH/out`, or has a target's name before PROFILE. Cargo tags `target`.
    let out = PathBuf::from(variable("OUT_DIR")?);
    let is_tagged = |directory: &&Path| directory.join("CACHEDIR.TAG").is_file();
    let target = out.ancestors().find(is_tagged).unwrap_or(&out);
    let target = target.join("ebpf");
    let mut cargo = Command::new(variable("CARGO")?);
    for name in OUTER {
        cargo.env_remove(name);
    }
    let mut cargo = cargo
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--no-default-features",
        ])
        .args(["--bin", "kernel-object", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target.join("xtask"))
        .arg("--")
        .arg(&target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("running cargo")?;
    // It prints what the object depends on as directives to cargo, and the object's path last.
    let mut printed = String::new();
    if let Some(pipe) = &mut cargo.stdout {
        std::io::Read::read_to_string(pipe, &mut printed).context("reading the path")?;
    }
    let status = cargo.wait().context("waiting for cargo")?;
    let mut path = None;
    for line in printed.lines() {
        if line.starts_with("cargo::") {
            println!("{line}");
        } else {
            path = Some(PathBuf::from(line));
        }
    }
    match path {
        Some(path) if status.success() => Ok(path),
        _ => bail!("it has to be built again, and that failed"),
    }
}

/// Returns whether a directory is the root of the workspace, with the sources of the object.
fn is_workspace(root: &Path) -> bool {
    root.join(SOURCES[0]).join("Cargo.toml").is_file()
}

/// Returns the files and directories below the workspace that decide about the object.
fn watched(root: &Path) -> Vec<PathBuf> {
    let files = ["Cargo.toml", "Cargo.lock"].map(|name| root.join(name));
    let sources = SOURCES
        .iter()
        .flat_map(|package| ["src", "Cargo.toml"].map(|name| root.join(package).join(name)));
    files.into_iter().chain(sources).collect()
}

fn variable(name: &str) -> Result<std::ffi::OsString> {
    env::var_os(name).with_context(|| format!("{name} is not set"))
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
