//! The command `knock-client`.

use clap::{CommandFactory as _, Parser};
use knock_client::cli::{Cli, Command, KnockArgs, Proxy};
use knock_client::plan::KnockPlan;
use knock_client::{
    Failure, ReportStyle, Reporter, Sequence, Waiting, completions, fwknop, keep, keygen, preview,
    profiles, proxy, run, sequence, share, ssh_config,
};
use knock_sequence::terminal::{harmless, harmless_with_words};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    completions::answer(Cli::command);
    let Cli { command, args } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    match command {
        None if args.print => ended(preview(&args)),
        None if args.keep => keep_open(&args),
        None => knock(&args),
        Some(Command::Proxy(proxy)) => pass(&proxy),
        Some(Command::Keygen(args)) => {
            ended(keygen::run(&args, &mut io::stdout(), &mut io::stderr()))
        }
        Some(Command::Profiles(args)) => {
            ended(profiles::run(&args, &mut io::stdout(), &mut io::stderr()))
        }
        Some(Command::Completions(args)) => ended(completions::run(&args, &mut io::stdout())),
        Some(Command::Share(args)) => {
            let (mut out, mut err) = (io::stdout(), io::stderr());
            let is_terminal = out.is_terminal();
            ended(share::share(&args, is_terminal, &mut out, &mut err))
        }
        Some(Command::Add(args)) => ended(share::add(&args, io::stdin(), &mut io::stderr())),
        Some(Command::SshConfig(args)) => ended(ssh_config::run(&args, &mut io::stdout())),
        Some(Command::ImportFwknop(args)) => {
            ended(fwknop::run(&args, &mut io::stdout(), &mut io::stderr()))
        }
    }
}

fn preview(args: &KnockArgs) -> Result<(), Failure> {
    let plan = KnockPlan::of_args(args, &mut |host| ask(host, args))?;
    preview::run(&plan, !args.knocks.is_empty(), &mut io::stdout())
}

fn knock(args: &KnockArgs) -> ExitCode {
    let mut report = Reporter::new(args.style(), io::stdout());
    if args.style() != ReportStyle::Json {
        report = report.with_waiting(waiting());
    }
    let plan = KnockPlan::of_args(args, &mut |host| ask(host, args));
    let done = plan.and_then(|plan| run(&plan, &mut report));
    if let Err(failure) = &done {
        report.failed(failure);
    }
    let written = report.finish();

    // JSON output already has the failure, unless it could not be written.
    if let Err(failure) = &written {
        print(failure);
    }
    if let Err(failure) = &done
        && (args.style() != ReportStyle::Json || written.is_err())
    {
        print(failure);
    }
    exit_code(done.and(written))
}

/// Keeps the door open, and returns the exit code of the command, if there is one.
fn keep_open(args: &KnockArgs) -> ExitCode {
    let options = keep::KeepOptions {
        command: args.command.clone(),
        give_up_after: args.give_up_after,
    };
    let is_json = args.style() == ReportStyle::Json;
    let reports = || {
        // Standard output belongs to the command.
        let out: Box<dyn Write + Send> = match options.command.is_empty() {
            true => Box::new(io::stdout()),
            false => Box::new(io::stderr()),
        };
        let report = Reporter::new(args.style(), out);
        match is_json {
            true => report,
            false => report.with_waiting(waiting()),
        }
    };
    let plan = match KnockPlan::of_args(args, &mut |host| ask(host, args)) {
        Ok(plan) => plan,
        Err(failure) => {
            let mut report = reports();
            report.failed(&failure);
            return match (is_json, report.finish()) {
                (true, Ok(())) => exit_code::<()>(Err(failure)),
                (true | false, _) => ended(Err(failure)),
            };
        }
    };
    match keep::run(&plan, &options, reports) {
        Ok(code) => ExitCode::from(code),
        // JSON output already has the failure.
        Err(failure) if is_json && !matches!(failure, Failure::Output(_)) => {
            exit_code::<()>(Err(failure))
        }
        Err(failure) => ended(Err(failure)),
    }
}

/// Prints what the program waits for to standard error.
fn waiting() -> Waiting {
    Waiting::new(print_line)
}

/// Relays a connection. Standard output carries its data, so events go to standard error.
fn pass(proxy: &Proxy) -> ExitCode {
    let out: Box<dyn Write> = if proxy.options.verbose {
        Box::new(io::stderr())
    } else {
        Box::new(io::sink())
    };
    let mut report = Reporter::new(ReportStyle::Verbose, out).with_waiting(waiting());
    let connected = KnockPlan::of_proxy(proxy).and_then(|plan| run(&plan, &mut report));
    if let Err(failure) = &connected {
        report.failed(failure);
    }
    // Before the relay, which can last for days. A log that can't be written does not prevent it.
    if let Err(failure) = report.finish() {
        print(&failure);
    }
    let done = connected.and_then(|stream| {
        let Some(stream) = stream else { return Ok(()) };
        let _only_slower = stream.set_nodelay(true);
        proxy::pass(&stream, io::stdin(), io::stdout(), close_stdout).map_err(Failure::Broken)
    });
    if let Err(failure) = &done {
        print(failure);
    }
    exit_code(done)
}

/// Prints the failure, if there is one, and returns the exit code.
fn ended(done: Result<(), Failure>) -> ExitCode {
    if let Err(failure) = &done {
        print(failure);
    }
    exit_code(done)
}

fn ask(host: &str, args: &KnockArgs) -> Option<Sequence> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let bare = args.options.bare();
    sequence::ask(host, bare, &mut io::stdin().lock(), &mut io::stderr()).ok()?
}

/// Closes standard output for its reader while this program continues.
#[cfg(unix)]
fn close_stdout() -> io::Result<()> {
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(nowhere).map_err(io::Error::from)
}

/// Does nothing: elsewhere the end of the program closes it.
#[cfg(not(unix))]
fn close_stdout() -> io::Result<()> {
    std::process::exit(0)
}

fn print(failure: &Failure) {
    print_line(&failure.to_string());
}

fn print_line(text: &str) {
    // A closed standard error has no reader to inform.
    let _gone = writeln!(io::stderr(), "knock-client: {}", harmless(text));
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
    ExitCode::from(2)
}

fn exit_code<T>(done: Result<T, Failure>) -> ExitCode {
    match done {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) if failure.is_bad_usage() => ExitCode::from(2),
        Err(_) => ExitCode::FAILURE,
    }
}
