//! `cargo xtask VERB`: the developer's commands.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    dist, ebpf, launch,
    setup::{self, Purpose},
    shell,
    test::{self, Chosen},
    vm,
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
        /// Also the peers that the firewall is measured beside (xdp-tools, fwknop, nftables, …)
        #[arg(long)]
        bench: bool,
    },
    /// Build the kernel object and check it
    BuildEbpf,
    /// Format check, lints, all tests; the last line is "N passed, N failed"
    Test {
        /// Leave out the tests that need root
        #[arg(long)]
        no_root: bool,
        /// Leave out the tests on other kernels
        #[arg(long)]
        no_vm: bool,
        /// Run only tests whose name contains this
        filter: Option<String>,
    },
    /// Run root tests on other kernels, in virtual machines; needs no root
    Vm {
        /// Versions or their beginnings: 6.1, 6.12.9 (default: 6.1 and 6.12)
        kernels: Vec<String>,
    },
    /// Show a knock opening a port, in network namespaces of its own
    Demo,
    /// Measure it beside the bare XDP program and its peers; needs root
    Bench {
        /// Take less than two minutes
        #[arg(long)]
        quick: bool,
        /// Also draw the pictures of docs/performance.md
        #[arg(long)]
        plots: bool,
        /// Only packet, growth, flood, open, survive or user
        filter: Option<String>,
    },
    /// Put programs, man pages, completions, documents and unit into target/dist, as under a prefix
    Dist,
    /// Spoofed packets at a knock-user, in network namespaces of their own; needs root
    Flood {
        /// What is sent; `cargo xtask flood -- --help` tells
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
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
        Verb::Setup { test, bench } => {
            let purpose = if test {
                Purpose::RootTests
            } else {
                Purpose::Build
            };
            setup::run(&sh, purpose)?;
            if test {
                vm::setup(&sh, &vm::SERIES)?;
            }
            if bench {
                setup::peers(&sh)?;
            }
        }
        Verb::BuildEbpf => {
            let kit = setup::ready(&sh)?;
            let object = ebpf::build(&sh, &kit, &ebpf::FIREWALL, &ebpf::target_dir())?;
            println!("{} ({} bytes)", object.path.display(), object.bytes);
            println!("{}", object.facts);
        }
        Verb::Test {
            no_root,
            no_vm,
            filter,
        } => {
            let chosen = Chosen {
                root: !no_root,
                vm: !no_vm,
                filter: filter.as_deref(),
            };
            return test::run(&sh, chosen);
        }
        Verb::Vm { kernels } => return vm::run(&sh, &kernels),
        Verb::Demo => {
            setup::run(&sh, Purpose::Build)?;
            return Err(launch::demo(&sh));
        }
        Verb::Bench {
            quick,
            plots,
            filter,
        } => {
            setup::run(&sh, Purpose::Build)?;
            let flags = [("--quick", quick), ("--plots", plots)];
            let flags = flags.into_iter().filter(|(_, given)| *given);
            let args: Vec<String> = flags
                .map(|(flag, _)| flag.to_owned())
                .chain(filter)
                .collect();
            return Err(launch::bench(&sh, &args));
        }
        Verb::Dist => {
            setup::run(&sh, Purpose::Build)?;
            println!("{}", dist::run(&sh)?.display());
        }
        Verb::Flood { args } => {
            setup::run(&sh, Purpose::Build)?;
            let args: Vec<String> = ["flood".to_owned()].into_iter().chain(args).collect();
            return Err(launch::bench(&sh, &args));
        }
        Verb::Run { args } => return Err(launch::run(&sh, &args)),
    }
    Ok(true)
}
