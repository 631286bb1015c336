//! `knock-user`: makes chosen ports invisible until the right source has knocked.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use jiff::tz::TimeZone;
use knock_user::{
    check,
    cli::{Cli, Command, Run},
    config::Problems,
    console::Style,
    daemon::{Daemon, Signals},
    import,
    output::Output,
    privileges,
    protection::Protection,
    start::Plan,
};
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Bad usage or bad configuration.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let Cli {
        command,
        run: options,
    } = Cli::parse();
    log_to_stderr(options.verbose);
    let done = match command {
        None => run(&options),
        Some(Command::Check { config }) => check::run(&config, &mut io::stdout().lock()),
        Some(Command::ImportKnockd { file }) => {
            import::run(&file, &mut io::stdout().lock(), &mut io::stderr().lock())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", told(&error));
            let bad = error.is::<Problems>();
            ExitCode::from(if bad { BAD_CONFIGURATION } else { 1 })
        }
    }
}

fn run(options: &Run) -> Result<()> {
    let plan = Plan::read(options)?;
    for warning in &plan.warnings {
        eprintln!("{warning}");
    }
    let interfaces = plan.interfaces(options)?;
    privileges::check()?;
    let style = Style {
        json: options.json,
        dry_run: options.dry_run,
        zone: TimeZone::system(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    // Inside the runtime: it is where signals, child processes and timers live.
    runtime.block_on(async {
        let signals = Signals::catch()?;
        let (protection, put) = Protection::begin(&plan, &interfaces, plan.how(options))?;
        let out = Output::new(io::stdout());
        let daemon = Daemon::new(options.clone(), plan, protection, put, style, out);
        daemon.run(signals).await
    })
}

/// Problems of a file are lines of their own; everything else is one line that begins with the
/// program's name.
fn told(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Problems>() {
        Some(problems) => problems.to_string(),
        None => format!("knock-user: {error:#}"),
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // How aya relocates an object is of no use to who runs it.
    let of_others = |level: LevelFilter| level.min(LevelFilter::INFO);
    let targets = Targets::new()
        .with_default(level)
        .with_target("aya", of_others(level))
        .with_target("aya_obj", of_others(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(targets))
        .init();
}
