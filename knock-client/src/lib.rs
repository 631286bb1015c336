//! The knocker: sends a sequence of TCP and UDP knocks to a host, and can then
//! connect to the port that they open.
//!
//! ```text
//! words ─▶ Args ─▶ Sequence ─▶ send ─▶ connect
//!          host ─▶ Target  ───────┘       │
//!                    Report ◀── events ───┘
//! ```
//!
//! A [`Sequence`] is all that sending needs to know: where its knocks come from (the
//! command line today) is decided before, in [`cli`].
//!
//! ```no_run
//! use knock_client::{Knock, Target, connect, send};
//! use std::time::Duration;
//!
//! let target = Target::resolve("192.0.2.1", None)?.first;
//! let knocks: Vec<Knock> = vec!["tcp/7000".parse()?, "udp/8000".parse()?];
//! let last = send(&target, &knocks, Duration::ZERO, |_number, _knock| {})?;
//! let opened = connect(&target, 22, last, Duration::from_secs(10))?;
//! println!("open after {:?}", opened.after);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod cli;
mod connect;
mod duration;
mod failure;
mod knock;
mod report;
mod send;
mod target;

pub use crate::connect::{Closed, ConnectError, Connected, connect};
pub use crate::duration::{ParseDurationError, parse_duration};
pub use crate::failure::Failure;
pub use crate::knock::{Knock, ParseKnockError, Protocol, Sequence};
pub use crate::report::{Report, Style};
pub use crate::send::{SendError, send};
pub use crate::target::{Family, ResolveError, Resolved, Target};

use std::io::Write;

/// Does what the command line asks: resolve, knock, and connect if it says so.
///
/// Nothing is written out between two knocks that have no delay, nor between the last
/// knock and the connection: a slow terminal must not slow the knocks.
///
/// # Errors
///
/// The first step that could not be done; later steps are not tried.
pub fn run(args: &cli::Args, report: &mut Report<impl Write>) -> Result<(), Failure> {
    let resolved = Target::resolve(&args.host, args.family())?;
    report.resolved(&args.host, &resolved);

    let target = resolved.first;
    let of = args.knocks.len();
    let last = send(&target, &args.knocks, args.delay, |number, knock| {
        report.knock(number, of, knock, &target);
        if !args.delay.is_zero() && number < of {
            report.flush();
        }
    })?;

    if let Some(port) = args.then_connect {
        let connected = connect(&target, port, last, args.timeout)?;
        report.connected(&target, port, &connected);
    }
    Ok(())
}
