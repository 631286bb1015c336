//! `cargo xtask VERB`: the developer's commands.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    ebpf, launch,
    setup::{self, Purpose},
    shell, test,
};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Developer commands of the port-knocking firewall"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what building needs: a compiler for the kernel object and its linker
    Setup {
        /// Also what the tests need: lints and the peers they talk to (knockd, nmap, …)
        #[arg(long)]
        test: bool,
    },
    /// Build the kernel object and check it
    BuildEbpf,
    /// Format check, lints, all tests; the last line is "N passed, N failed"
    Test {
        /// Leave out the tests that need root
        #[arg(long)]
        no_root: bool,
        /// Run only tests whose name contains this
        filter: Option<String>,
    },
    /// Show a knock opening a port, in network namespaces of its own
    Demo,
    /// Build knock-user and run it with these arguments (with sudo when not root)
    Run {
        /// What follows goes to knock-user
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well; a test that failed has said so itself.
fn run(verb: Verb) -> Result<bool> {
    let sh = shell::at_root()?;
    match verb {
        Verb::Setup { test } => {
            let purpose = if test {
                Purpose::RootTests
            } else {
                Purpose::Build
            };
            setup::run(&sh, purpose)?;
        }
        Verb::BuildEbpf => {
            let kit = setup::ready(&sh)?;
            let object = ebpf::build(&sh, &kit, &ebpf::target_dir())?;
            println!("{} ({} bytes)", object.path.display(), object.bytes);
            println!("{}", object.facts);
        }
        Verb::Test { no_root, filter } => return test::run(&sh, !no_root, filter.as_deref()),
        Verb::Demo => {
            setup::run(&sh, Purpose::Build)?;
            return Err(launch::demo(&sh));
        }
        Verb::Run { args } => return Err(launch::run(&sh, &args)),
    }
    Ok(true)
}
