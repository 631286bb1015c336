//! The lines of JSON between the daemon of a host and `knock-fleet`, the process that connects the
//! host to the engine of its fleet.
//!
//! The daemon starts `knock-fleet` with one end of a stream socket as its standard input, and both
//! sides read and write lines there. Requests go to `knock-fleet`: settings, then writes
//! ([`Put`], which may be conditional), watches of a prefix ([`Watch`]) and the sign of life of the
//! host ([`Beat`]). Reports come back: the state of the link, records, and one answer per write.
//! `knock-fleet` knows no meaning of keys and values: the daemon seals and judges them.
//!
//! A side whose [`Queue`] is full gives up the link: `knock-fleet` lists again
//! ([`Cause::Overflow`]), and the daemon starts another `knock-fleet`. The end of its standard input
//! ends `knock-fleet`.
//!
//! The crate may use std and serde. It must not know an engine, a runtime, a socket or a clock, so
//! that the daemon can use it where no fleet is installed.
#![forbid(unsafe_code)]

mod line;
mod octets;
mod queue;
mod report;
mod request;

pub use self::{
    line::{LONGEST_LINE, Unreadable, printable, read_line, to_line},
    octets::Octets,
    queue::{Full, Keyed, LONGEST_QUEUE, Queue},
    report::{Cause, Found, Report},
    request::{Beat, Condition, Open, PROTOCOL, Point, Put, Request, Watch, Write},
};
