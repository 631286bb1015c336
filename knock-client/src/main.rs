//! The command `knock-client`.

use clap::Parser;
use knock_client::cli::{Cli, Command, KnockArgs, Proxy};
use knock_client::plan::Plan;
use knock_client::{Failure, Report, Sequence, Style, proxy, run, sequence};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Cli { command, args } = Cli::parse();
    match command {
        None => knock(&args),
        Some(Command::Proxy(proxy)) => pass(&proxy),
    }
}

fn knock(args: &KnockArgs) -> ExitCode {
    let mut report = Report::new(args.style(), io::stdout());
    let plan = Plan::of_args(args, &mut |host| ask(host, args));
    let done = plan.and_then(|plan| run(&plan, &mut report));
    if let Err(failure) = &done {
        report.failed(failure);
    }
    let told = report.finish();

    // What has been told as JSON is not told twice; what could not be told has only this place left.
    if let Err(failure) = &told {
        tell(failure);
    }
    if let Err(failure) = &done
        && (args.style() != Style::Json || told.is_err())
    {
        tell(failure);
    }
    exit_code(done.and(told))
}

/// Standard output belongs to what is passed on, so what happens is told on standard error.
fn pass(proxy: &Proxy) -> ExitCode {
    let out: Box<dyn Write> = if proxy.options.verbose {
        Box::new(io::stderr())
    } else {
        Box::new(io::sink())
    };
    let mut report = Report::new(Style::Verbose, out);
    let connected = Plan::of_proxy(proxy).and_then(|plan| run(&plan, &mut report));
    if let Err(failure) = &connected {
        report.failed(failure);
    }
    // Before the conversation, which may last for days. What can't be noted is no reason not to
    // have it.
    if let Err(failure) = report.finish() {
        tell(&failure);
    }
    let done = connected.and_then(|stream| {
        let Some(stream) = stream else { return Ok(()) };
        let _only_slower = stream.set_nodelay(true);
        proxy::pass(&stream, io::stdin(), io::stdout(), close_stdout).map_err(Failure::Broken)
    });
    if let Err(failure) = &done {
        tell(failure);
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

/// Lets who reads standard output see its end, though this program goes on.
#[cfg(unix)]
fn close_stdout() -> io::Result<()> {
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(nowhere).map_err(io::Error::from)
}

/// Elsewhere it is closed when the program ends.
#[cfg(not(unix))]
fn close_stdout() -> io::Result<()> {
    std::process::exit(0)
}

fn tell(failure: &Failure) {
    // A file or a server may have put anything into it, also what moves a terminal's cursor.
    let text: String = failure.to_string().chars().map(shown).collect();
    // Where nobody reads it, there is nobody to tell.
    let _gone = writeln!(io::stderr(), "knock-client: {text}");
}

fn shown(character: char) -> String {
    match character.is_control() && character != '\n' {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    }
}

fn exit_code<T>(done: Result<T, Failure>) -> ExitCode {
    match done {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) if failure.is_bad_usage() => ExitCode::from(2),
        Err(_) => ExitCode::FAILURE,
    }
}
