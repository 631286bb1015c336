//! `knock-user`: makes chosen ports invisible until the right source has knocked.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use jiff::tz::TimeZone;
use knock_user::{
    admin::{self, command::SubcommandOutcome},
    apply::{
        Protection,
        options::Run,
        own_session,
        plan::Plan,
        unconfirmed::{self, Start},
    },
    cli::{Cli, Command},
    console::{
        Console, LinePrefix, Style,
        journal::Journal,
        log_files::LogFiles,
        stdout::{Output, Unread},
        watch::Watchers,
    },
    control::{BadFile, ControlServer, SocketAccess},
    daemon::{Daemon, Servers, Signals, Watches},
    host::{
        clock, os_error,
        paths::MOUNT_POINT,
        privileges,
        service_manager::{self, Stderr},
    },
    interfaces::admission,
    kernel::{
        bpffs, instance::Instance, leftovers, persistence::Persistence, program::LoaderAhead,
    },
    metrics::MetricsServer,
    model::{
        log_format::LogFormat,
        problem::{Misuse, Problems},
        terminal::{harmless_lines, harmless_with_words},
    },
    sequences::{next_line_server::NextLineServer, state_directory},
    tools::{
        check, completions,
        generate::{self, Unsuitable},
        import, import_fwknop, keygen,
    },
    top,
};
use tracing::Level;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Bad usage or bad configuration.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    Signals::hold_back();
    completions::answer(Cli::command);
    let Cli {
        command,
        run: options,
    } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    if command.is_some() {
        Signals::release();
    }
    let stderr = Stderr::find();
    log_to(stderr, options.verbose);
    let done = match command {
        None => run(&options, stderr),
        Some(Command::Check { config }) => check::run(&config, &mut Unread(io::stdout().lock())),
        Some(Command::Generate(options)) => {
            generate::run(&options, &mut Unread(io::stdout().lock()))
        }
        Some(Command::Keygen(options)) => keygen::run(&options, &mut Unread(io::stdout().lock())),
        Some(Command::ImportKnockd { file }) => import::run(
            &file,
            &mut Unread(io::stdout().lock()),
            &mut Unread(io::stderr().lock()),
        ),
        Some(Command::ImportFwknop(options)) => import_fwknop::run(
            &options,
            &mut Unread(io::stdout().lock()),
            &mut Unread(io::stderr().lock()),
        ),
        Some(Command::Completions(options)) => {
            completions::run(&options, &mut Unread(io::stdout().lock()))
        }
        Some(Command::Top(options)) => top::run(&options),
        Some(Command::Admin(subcommand)) => match subcommand.run(&mut io::stdout().lock()) {
            // The answer has what is missing.
            Ok(SubcommandOutcome::NotInForce) => return ExitCode::FAILURE,
            done => done.map(|_| ()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stderr.print(Level::ERROR, &error_lines(&error));
            let bad = error.is::<Problems>()
                || error.is::<BadFile>()
                || error.is::<Unsuitable>()
                || error.is::<Misuse>();
            ExitCode::from(if bad { BAD_CONFIGURATION } else { 1 })
        }
    }
}

/// Prints what is wrong about the command line, or the help that it asks for. Foreign words may be in it.
fn misused(error: &clap::Error) -> ExitCode {
    let text = error.render();
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let safe = harmless_with_words(&text.ansi().to_string(), words);
    // Without such words, clap knows whether the terminal has colours.
    if safe == text.to_string() {
        error.exit();
    }
    let _gone = write!(io::stderr(), "{safe}");
    ExitCode::from(BAD_CONFIGURATION)
}

fn run(options: &Run, stderr: Stderr) -> Result<()> {
    let log_files = LogFiles::find();
    clock::check()?;
    // This takes as long as the next steps.
    let loader = LoaderAhead::begin()?;
    // First of all: nothing of this start may keep an overdue trial in force.
    unconfirmed::end_overdue();
    let plan = Plan::read(options)?;
    for warning in &plan.warnings {
        stderr.print(Level::WARN, warning);
    }
    let interfaces = plan.interfaces(options)?;
    privileges::check()?;
    warn_of_own_session(&plan);
    let style = Style {
        json: options.is_json(),
        dry_run: options.dry_run,
        stamp: stamp(),
        zone: TimeZone::system(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    // Signals, child processes and timers need the runtime.
    runtime.block_on(async {
        let signals = Signals::catch()?;
        leftovers::sweep();
        let was_mounted = bpffs::is_mounted_at(Path::new(MOUNT_POINT));
        let instance = match unconfirmed::instance_of(&plan) {
            Some(instance) => instance,
            None => Instance::of(&interfaces)?,
        };
        let persistence = Persistence::find(was_mounted);
        persistence.check(options.on_exit)?;
        let instance = instance.lock()?;
        leftovers::look_around(&instance);
        let Start {
            plan,
            attach_options,
            back,
        } = unconfirmed::start(&instance, plan, options)?;
        let interfaces = plan.interfaces(options)?;
        let watchers = Watchers::default();
        let access = SocketAccess::new(plan.settings().control.group.as_deref())?;
        let control = ControlServer::listen(&instance.socket(), access, watchers.clone())?;
        let mut next_line = NextLineServer::default();
        next_line.listen(plan.settings().next_line);
        let mut metrics = MetricsServer::new(control.asker());
        metrics.listen(plan.settings().metrics);
        admission::note_names();
        if let Some(note) = state_directory::take_over() {
            tracing::warn!("{note}");
        }
        // Capabilities are dropped while there is one thread.
        loader.finish()?;
        // Everything that needs more is done: the group of the socket, and a port below 1024.
        privileges::drop_to_needed()?;
        if let Some(unreadable) = privileges::unreadable(&options.config) {
            tracing::warn!("{unreadable}");
        }
        // Watching begins before the program is attached, so that no change of a driver is missed.
        let watches = Watches::open()?;
        let (protection, deployed) =
            Protection::begin(instance, &plan, &interfaces, attach_options)?;
        let out = Output::new(io::stdout());
        let daemon = Daemon::new(
            options.clone(),
            plan,
            protection,
            deployed,
            Servers { next_line, metrics },
            admin::handle,
            |doors| {
                let console = Console::new(out, style, doors, clock::booted_at());
                let console = console.with_watchers(watchers);
                let console = console.with_colors(options.color.is_on());
                let console = match service_manager::is_journal(io::stdout()) {
                    true => console.with_journal(Journal::new()),
                    false => console,
                };
                match options.log_format {
                    LogFormat::Knockd => console.in_knockds_words(),
                    LogFormat::Text | LogFormat::Json => console,
                }
            },
        );
        daemon
            .with_persistence(persistence)
            .with_log_files(log_files)
            .with_fallback(back)
            .run(signals, control, watches)
            .await
    })
}

/// Returns what lines on standard output begin with.
fn stamp() -> LinePrefix {
    if service_manager::is_journal(io::stdout()) {
        LinePrefix::None
    } else if io::stdout().is_terminal() {
        LinePrefix::Time
    } else {
        LinePrefix::Date
    }
}

/// Warns if the connection of this terminal would be cut, before anything is attached.
fn warn_of_own_session(plan: &Plan) {
    let fate =
        own_session::own().map(|connection| own_session::impact(connection, plan.settings()));
    if let Some(warning) = fate.and_then(|fate| fate.warning()) {
        tracing::warn!("{warning}");
    }
}

/// Returns the text of an error. Problems of a file are lines of their own, each with the file's
/// name; everything else is one line that begins with the program's name.
fn error_lines(error: &anyhow::Error) -> String {
    if error.is::<Problems>() || error.is::<BadFile>() {
        return harmless_lines(&error.to_string());
    }
    service_manager::named(Level::ERROR, &harmless_lines(&os_error::describe(error)))
}

fn log_to(stderr: Stderr, verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // The user has no use for aya's lines about relocations.
    let of_others = |level: LevelFilter| level.min(LevelFilter::INFO);
    let targets = Targets::new()
        .with_default(level)
        .with_target("aya", of_others(level))
        .with_target("aya_obj", of_others(level));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(stderr)
        .with_writer(stderr);
    tracing_subscriber::registry()
        .with(lines.with_filter(targets))
        .init();
}
