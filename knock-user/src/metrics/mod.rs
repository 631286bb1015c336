//! Metrics for Prometheus: what the daemon counts, their text, and the page that a scraper reads.
//!
//! The page is the answer to the request `metrics` of the control socket, which a connection of
//! [`MetricsServer`] sends like a client. So this room neither knows the daemon nor what is measured.
//! Labels have values from the configuration and from fixed lists alone, so that no client can add a
//! series.
//!
//! May use every room from `model` to `control`. Must not know the daemon.

mod format;
mod server;
mod tally;

pub use format::{Format, MetricFamily, MetricKind, Sample, Value};
pub use server::MetricsServer;
pub use tally::{CommandOutcome, DoorTally, Tally};
