//! Measures `knock-user`, its peers and an empty XDP program in the same run.

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

use std::{fs, panic, path::Path, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use knock_bench::{
    drop_cost, flood, growth,
    machine::MachineInfo,
    modes, open, packet, plots,
    report::{BenchReport, ReportSection},
    scale::Scale,
    spa, spa_flood, survive, user,
};
use knock_tests::namespace;
use nix::unistd::Uid;

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    about = "Measure knock-user beside an empty XDP program and its peers",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    instead: Option<OtherCommand>,
    /// Take a few minutes
    #[arg(long)]
    quick: bool,
    /// Draw the pictures of docs/performance.md, and write its page of figures
    #[arg(long)]
    plots: bool,
    /// Measure only this section
    #[arg(value_parser = SECTIONS.map(|(name, _)| name))]
    filter: Option<String>,
}

/// Subcommands that measure nothing.
#[derive(Subcommand)]
enum OtherCommand {
    /// Send spoofed packets to a knock-user, both in namespaces of their own
    #[command(
        name = "flood",
        display_name = "cargo xtask flood",
        bin_name = "cargo xtask flood"
    )]
    Flood(flood::FloodOptions),
}

/// A function that measures a section.
type Measure = fn(Scale) -> Result<ReportSection>;

/// The sections, by the names that choose them.
const SECTIONS: [(&str, Measure); 10] = [
    ("packet", packet::measure),
    ("two-cpus", packet::two_cpus::measure),
    ("spa", spa::measure),
    ("growth", growth::measure),
    ("flood", drop_cost::measure),
    ("modes", modes::measure),
    ("open", open::measure),
    ("survive", survive::measure),
    ("spa-flood", spa_flood::measure),
    ("user", user::measure),
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    namespace::panic_in_plain_words();
    // The harness of the tests reports errors by panics.
    match panic::catch_unwind(|| run(&cli)) {
        Err(_) => ExitCode::FAILURE,
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    ensure!(
        Uid::effective().is_root(),
        "measuring needs root, as do the tests: `sudo --preserve-env env \"PATH=$PATH\" cargo xtask bench`"
    );
    if let Some(OtherCommand::Flood(options)) = &cli.instead {
        return flood::run(options);
    }
    let scale = Scale::new(cli.quick);
    let mut report = BenchReport::default();
    for (name, measure) in SECTIONS {
        let chosen = cli.filter.as_ref().is_none_or(|filter| filter == name);
        if chosen {
            let began = Instant::now();
            let section = measure(scale)?;
            eprintln!("{name}: {:.0} s", began.elapsed().as_secs_f64());
            report.sections.push(section);
        }
    }
    let machine = MachineInfo::here()?;
    let (met, goals) = report.goals();
    let conditions = format!("{machine}\n\nSpectre: {}\n", MachineInfo::mitigation());
    print!(
        "{conditions}{}\n{met} of {goals} goals are met\n",
        report.table()
    );
    if cli.plots {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance");
        for name in plots::draw(&report, &machine, &directory)? {
            println!("drawn: docs/performance/{name}");
        }
        if cli.filter.is_none() {
            let path = directory.join("figures.md");
            let head = "# Figures of one run\n\n`cargo xtask bench --plots` writes this page; \
                        [performance.md](../performance.md) explains it.\n\n";
            fs::write(&path, format!("{head}{conditions}{}", report.page()))
                .with_context(|| format!("writing {}", path.display()))?;
            println!("written: docs/performance/figures.md");
        }
    }
    Ok(())
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
