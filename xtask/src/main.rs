//! `cargo xtask VERB`: the developer's commands.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    dist, ebpf, fresh, launch,
    package::Apt,
    setup, shell,
    test::{self, Chosen},
    tools, vm,
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
    /// Find or install what building and the demo need: compiler and linker for the kernel object, ip
    Setup {
        /// Also what the tests need: lints, QEMU, and the peers they talk to (knockd, nmap, …)
        #[arg(long)]
        test: bool,
        /// Also the peers that the firewall is measured beside (xdp-tools, fwknop, nftables, …)
        #[arg(long)]
        bench: bool,
    },
    /// Build the kernel object and check it
    BuildEbpf,
    /// Format check, lints, all tests; the last line is "N passed, N failed, N skipped"
    Test {
        /// Leave out the tests that need root
        #[arg(long)]
        no_root: bool,
        /// Leave out the tests on other kernels
        #[arg(long)]
        no_vm: bool,
        /// Run them so many times, to find one that fails now and then
        #[arg(long, value_name = "N", default_value_t = 1, requires = "filter",
              value_parser = clap::value_parser!(u32).range(1..))]
        repeat: u32,
        /// Run only tests whose name contains this, and no lints
        filter: Option<String>,
    },
    /// Run root tests on other kernels, in virtual machines; needs no root
    Vm {
        /// Versions or their beginnings: 6.1, 6.12.9 (default: 6.1 and 6.12)
        kernels: Vec<String>,
    },
    /// Show a knock opening a port, in network namespaces of its own
    Demo,
    /// Run README's commands in a pristine Debian 12 with nothing but Rust and a C compiler; needs root
    Fresh {
        /// Only these: demo, test
        verbs: Vec<String>,
    },
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
    let apt = Apt::new(&sh);
    match verb {
        Verb::Setup { test, bench } => {
            tools::get(&apt, tools::Verb::Demo)?;
            if test {
                tools::get(&apt, tools::Verb::Test)?;
            }
            if bench {
                tools::get(&apt, tools::Verb::Bench)?;
            }
            let kit = setup::run(&sh, &apt)?;
            if test {
                setup::lints(&sh, &apt)?;
                setup::kernel_lints(&sh, &kit.toolchain, &apt);
                vm::get(&sh, &apt, &vm::SERIES)?;
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
            repeat,
            filter,
        } => {
            let chosen = Chosen {
                root: !no_root,
                vm: !no_vm,
                filter: filter.as_deref(),
                repeat,
            };
            return test::run(&sh, chosen);
        }
        Verb::Vm { kernels } => return vm::run(&sh, &kernels),
        Verb::Demo => {
            tools::get(&apt, tools::Verb::Demo)?;
            setup::run(&sh, &apt)?;
            return Err(launch::demo(&sh));
        }
        Verb::Fresh { verbs } => return fresh::run(&sh, &apt, &verbs),
        Verb::Bench {
            quick,
            plots,
            filter,
        } => {
            tools::get(&apt, tools::Verb::Bench)?;
            setup::run(&sh, &apt)?;
            let flags = [("--quick", quick), ("--plots", plots)];
            let flags = flags.into_iter().filter(|(_, given)| *given);
            let args: Vec<String> = flags
                .map(|(flag, _)| flag.to_owned())
                .chain(filter)
                .collect();
            return Err(launch::bench(&sh, &args));
        }
        Verb::Dist => {
            tools::get(&apt, tools::Verb::Dist)?;
            setup::run(&sh, &apt)?;
            println!("{}", dist::run(&sh)?.display());
        }
        Verb::Flood { args } => {
            tools::get(&apt, tools::Verb::Flood)?;
            setup::run(&sh, &apt)?;
            let args: Vec<String> = ["flood".to_owned()].into_iter().chain(args).collect();
            return Err(launch::bench(&sh, &args));
        }
        Verb::Run { args } => return Err(launch::run(&sh, &args)),
    }
    Ok(true)
}
