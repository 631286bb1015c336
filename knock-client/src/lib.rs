//! The knocker: sends a sequence of TCP and UDP knocks to a host, and can then
//! connect to the port that they open.
//!
//! ```text
//! words ─▶ Args ─▶ Sequence ─▶ send ─▶ connect
//!          host ─▶ Target  ───────┘       │
//!                    Report ◀── events ───┘
//! ```
//!
//! A [`Sequence`] is all that sending needs to know: where its knocks come from is
//! decided before.
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

mod connect;
mod duration;
mod failure;
mod knock;
mod send;
mod target;

pub use crate::connect::{Closed, ConnectError, Connected, connect};
pub use crate::duration::{ParseDurationError, parse_duration};
pub use crate::failure::Failure;
pub use crate::knock::{Knock, ParseKnockError, Protocol, Sequence};
pub use crate::send::{SendError, send};
pub use crate::target::{Family, ResolveError, Resolved, Target};
