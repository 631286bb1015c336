//! `kernel-object DIRECTORY`: builds the kernel object below a directory of cargo's builds.
//!
//! The build script of knock-user starts it where the kept object is out of date. It prints directives to cargo and,
//! in the last line, the path of the object. It installs nothing; if something is missing, the error names
//! `cargo xtask setup`.

use std::{env, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use xtask::{ebpf, setup, shell};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let directory = env::args_os().nth(1).context("name a directory")?;
    let sh = shell::at_root()?;
    let kit = setup::ready(&sh)?;
    println!("cargo::rerun-if-changed={}", kit.linker.path.display());
    println!(
        "cargo::rerun-if-changed={}",
        kit.toolchain.rustc().display()
    );
    let built = ebpf::build(&sh, &kit, &ebpf::PROGRAM, Path::new(&directory))?;
    println!("{}", built.path.display());
    Ok(())
}
