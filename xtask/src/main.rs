//! `cargo xtask VERB`: the developer's commands.

#[cfg(test)]
#[path = "../../knock-common/tests/pages/help.rs"]
mod help;
#[cfg(test)]
#[path = "../../knock-common/tests/pages/mod.rs"]
#[expect(dead_code, reason = "helpers that tests of pages share")]
mod pages;
#[cfg(test)]
#[path = "../../knock-common/tests/pages/words.rs"]
mod words;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    audit, containers, dist, ebpf, elsewhere, fleet, fresh, fuzz, launch, machine,
    package::Apt,
    packages,
    report::RunReport,
    setup, shell,
    test::{self, ChosenTests},
    tools, twice, vm,
};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Developer commands of knock"
)]
struct Cli {
    #[command(subcommand)]
    verb: CliCommand,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Find or install what building and the demo need: compiler and linker for the kernel object, ip
    Setup {
        /// Install what the tests need too: lints, QEMU, makers of packages, and peers such as knockd and nmap
        #[arg(long)]
        test: bool,
        /// Install the peers of the benchmark too, such as xdp-tools, fwknop and nftables
        #[arg(long)]
        bench: bool,
        /// Install what knock-fleet and its tests need too: protoc, etcd
        #[arg(long)]
        fleet: bool,
    },
    /// Build the kernel object and check it
    BuildEbpf {
        /// Keep it in knock-user/object, so that others need neither nightly nor LLVM to build
        #[arg(long)]
        keep: bool,
    },
    /// Check format, lint and test; the last line has counts, and names what was left out
    Test {
        /// Leave out the tests that need root
        #[arg(long)]
        no_root: bool,
        /// Leave out virtual machines: other kernels, and a booted system
        #[arg(long, conflicts_with = "all")]
        no_vm: bool,
        /// Run also what takes long: other network cards, processors and systems, containers, two builds
        #[arg(long)]
        all: bool,
        /// Repeat the run, to find a test that fails now and then
        #[arg(long, value_name = "N", default_value_t = 1, requires = "filter",
              value_parser = clap::value_parser!(u32).range(1..))]
        repeat: u32,
        /// Run only tests whose name contains this, and no lints
        filter: Option<String>,
    },
    /// Run root tests on other kernels, in virtual machines; needs no root
    Vm {
        /// Use these versions or their beginnings, such as 6.12.9, or arm64 [default: 6.1 6.12]
        kernels: Vec<String>,
    },
    /// Install the package on a Debian 12 with systemd in QEMU, and test it there; needs root
    Machine {
        /// Run only rows whose name contains this, such as upgrade or e1000e
        filter: Option<String>,
    },
    /// Install packages and archives in pristine systems, and check what they do there; needs root
    Packages {
        /// Run only tests whose name contains this, such as deb or upgrade
        filter: Option<String>,
    },
    /// Publish ports with Debian's container engines, and open them by knocks; needs root
    Containers,
    /// Check the client for other systems, and let the one for Windows knock under Wine; needs root
    Elsewhere,
    /// Test knock-fleet with three members of Debian's etcd, which are killed and cut off; needs root
    Fleet {
        /// Run only tests whose name contains this, such as claims or rejoin
        filter: Option<String>,
    },
    /// Show a knock opening a port, in network namespaces of its own
    Demo {
        /// Show hosts that open together, through three members of etcd, instead
        #[arg(value_parser = ["fleet"])]
        what: Option<String>,
    },
    /// Run README's commands in a pristine Debian 12 with nothing but Rust and a C compiler; needs root
    Fresh {
        /// Run these commands: any of README, or packages [default: demo test]
        verbs: Vec<String>,
    },
    /// Measure knock-user beside an empty XDP program and its peers; needs root
    Bench {
        /// Take a few minutes
        #[arg(long)]
        quick: bool,
        /// Draw the pictures of docs/performance.md, and write its page of figures
        #[arg(long)]
        plots: bool,
        /// Measure only packet, two-cpus, spa, growth, flood, modes, open, survive, spa-flood or user
        filter: Option<String>,
    },
    /// Run the fuzz targets with libFuzzer, one after the other
    Fuzz {
        /// Run this target alone, one of those in fuzz/fuzz_targets, such as parser or judge
        target: Option<String>,
        /// Run each target for this long, such as 30s, 10m or 1h30m
        #[arg(long = "for", value_name = "DURATION", default_value = "1m", value_parser = fuzz::length)]
        length: Duration,
    },
    /// Check spelling, and licences, duplicates, sources and vulnerabilities of the dependencies
    Audit,
    /// Build packages, archives, container image and lists of components into target/dist
    Dist {
        /// Build for this processor alone
        #[arg(long)]
        arch: Option<dist::Architecture>,
        /// Build again from a clone in another directory, and compare all bytes
        #[arg(long)]
        twice: bool,
    },
    /// Draw the pictures of README and of the guides from real runs; needs root
    Pictures,
    /// Send spoofed packets to a knock-user, in network namespaces of their own; needs root
    Flood {
        /// Pass these options to the generator; see `cargo xtask flood -- --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build knock-user and run it with these arguments (with sudo when not root)
    Run {
        /// Pass these arguments to knock-user
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

/// Returns whether everything succeeded; a test that failed is already reported.
fn run(verb: CliCommand) -> Result<bool> {
    let sh = shell::at_root()?;
    let apt = Apt::new(&sh);
    match verb {
        CliCommand::Setup { test, bench, fleet } => {
            tools::get(&apt, tools::Verb::Demo)?;
            if test {
                tools::get(&apt, tools::Verb::Test)?;
            }
            if bench {
                tools::get(&apt, tools::Verb::Bench)?;
            }
            if fleet {
                fleet::get(&apt)?;
            }
            let kit = setup::run(&sh, &apt)?;
            if test {
                setup::lints(&sh, &apt)?;
                setup::kernel_lints(&sh, &kit.toolchain, &apt);
                vm::get(&sh, &apt, &vm::SERIES)?;
                tools::get(&apt, tools::Verb::Packages)?;
                dist::prepare_tests(&sh)?;
            }
        }
        CliCommand::BuildEbpf { keep } => {
            let kit = setup::ready(&sh)?;
            let object = ebpf::build(&sh, &kit, &ebpf::PROGRAM, &ebpf::target_dir())?;
            println!("{} ({} bytes)", object.path.display(), object.bytes);
            println!("{}", object.facts);
            if keep {
                let is_changed = ebpf::record::keep(&sh, &object)?;
                let place = ebpf::record::directory();
                let done = if is_changed { "kept" } else { "unchanged" };
                println!("{done} in {}", place.display());
            }
        }
        CliCommand::Test {
            no_root,
            no_vm,
            all,
            repeat,
            filter,
        } => {
            let chosen = ChosenTests {
                root: !no_root,
                vm: !no_vm,
                all,
                filter: filter.as_deref(),
                repeat,
            };
            return test::run(&sh, chosen);
        }
        CliCommand::Vm { kernels } => return vm::run(&sh, &kernels),
        CliCommand::Machine { filter } => return machine::run(&sh, filter.as_deref()),
        CliCommand::Packages { filter } => return packages::run(&sh, filter.as_deref()),
        CliCommand::Containers => return containers::run(&sh),
        CliCommand::Fleet { filter } => return fleet::run(&sh, filter.as_deref()),
        CliCommand::Elsewhere => {
            elsewhere::get(&sh, &apt)?;
            ebpf::record::prepare(&sh, &apt)?;
            let mut report = RunReport::default();
            elsewhere::test(&sh, &mut report)?;
            report.print();
            return Ok(report.is_good());
        }
        CliCommand::Demo { what } => {
            let is_fleet = what.is_some();
            let verb = if is_fleet {
                tools::Verb::Fleet
            } else {
                tools::Verb::Demo
            };
            tools::get(&apt, verb)?;
            ebpf::record::prepare(&sh, &apt)?;
            return Err(launch::demo(&sh, is_fleet));
        }
        CliCommand::Fresh { verbs } => return fresh::run(&sh, &apt, &verbs),
        CliCommand::Bench {
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
        CliCommand::Fuzz { target, length } => {
            return fuzz::run(&sh, &apt, target.as_deref(), length);
        }
        CliCommand::Audit => return audit::run(&sh),
        CliCommand::Dist { arch, twice } => {
            let architectures = arch.map_or(dist::Architecture::ALL.to_vec(), |arch| vec![arch]);
            tools::get(&apt, tools::Verb::Dist)?;
            ebpf::record::prepare(&sh, &apt)?;
            dist::prepare(&sh, &architectures)?;
            if twice {
                let different = twice::compare(&sh, &architectures)?;
                for line in &different {
                    println!("{line}");
                }
                println!("{} files differ", different.len());
                return Ok(different.is_empty());
            }
            println!("{}", dist::run(&sh, &architectures)?.display());
        }
        CliCommand::Pictures => {
            tools::get(&apt, tools::Verb::Pictures)?;
            ebpf::record::prepare(&sh, &apt)?;
            launch::pictures(&sh)?;
        }
        CliCommand::Flood { args } => {
            tools::get(&apt, tools::Verb::Flood)?;
            setup::run(&sh, &apt)?;
            let args: Vec<String> = ["flood".to_owned()].into_iter().chain(args).collect();
            return Err(launch::bench(&sh, &args));
        }
        CliCommand::Run { args } => return Err(launch::run(&sh, &args)),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, help};

    #[test]
    fn every_help_line_is_short_and_imperative() {
        help::check_help(&Cli::command());
    }
}
