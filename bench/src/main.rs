//! Measures the firewall, and beside it its peers and the bare XDP program, in the same run.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use knock_bench::{
    growth, open, packet, rate,
    report::{Report, Section},
    scale::Scale,
    survive, user,
};
use nix::unistd::Uid;

#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    /// Take less than two minutes
    #[arg(long)]
    quick: bool,
    /// Only sections whose title contains this
    filter: Option<String>,
}

/// A section: its title, and what measures it.
type Measure = fn(Scale) -> Result<Section>;

const SECTIONS: &[(&str, Measure)] = &[
    (packet::TITLE, packet::measure),
    (growth::TITLE, growth::measure),
    (rate::TITLE, rate::measure),
    (open::TITLE, open::measure),
    (survive::TITLE, survive::measure),
    (user::TITLE, user::measure),
];

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
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
    // Away from what runs on the first by habit: interrupts, and the shell that started us.
    let scale = Scale::new(cli.quick);
    let mut report = Report::default();
    for (title, measure) in SECTIONS {
        let chosen = cli
            .filter
            .as_ref()
            .is_none_or(|filter| title.contains(filter));
        if chosen {
            eprintln!("measuring: {title}");
            report.sections.push(measure(scale)?);
        }
    }
    print!("{}", report.table());
    let (met, goals) = report.goals();
    println!("\n{met} of {goals} goals are met");
    Ok(())
}
