//! The command `knock-client`.

use clap::Parser;
use knock_client::cli::Args;
use knock_client::{Failure, Report, Style, run};
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut report = Report::new(args.style(), io::stdout());

    let done = run(&args, &mut report);
    if let Err(failure) = &done {
        report.failed(failure);
    }
    let told = report.finish().map_err(Failure::Output);

    // What has been told as JSON is not told twice; what could not be told has only this place left.
    if let Err(failure) = &told {
        eprintln!("error: {failure}");
    }
    if let Err(failure) = &done
        && (args.style() != Style::Json || told.is_err())
    {
        eprintln!("error: {failure}");
    }
    if done.and(told).is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
