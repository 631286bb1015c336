//! Waits for ring buffers: the events of the kernel side, and the program's log.

use std::{io, os::fd::AsRawFd};

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use log::Log;
use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyMutGuard},
};

use crate::apply::Protection;

/// The log of the program in the kernel.
pub(super) type ProgramLog = AsyncFd<EbpfLogger<&'static dyn Log>>;

#[expect(
    deprecated,
    reason = "its successor is unsafe because a descriptor could be closed; aya's live in what they belong to"
)]
pub(super) fn readable<T: AsRawFd>(source: T) -> Result<AsyncFd<T>> {
    AsyncFd::with_interest(source, Interest::READABLE).context("watching a ring buffer")
}

/// Opens the program's log if the log level asks for it.
pub(super) fn program_log(protection: &mut Protection) -> Result<Option<ProgramLog>> {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return Ok(None);
    }
    let log = EbpfLogger::init(protection.program().ebpf());
    Ok(Some(readable(log.context("reading the program's log")?)?))
}

/// Waits for an entry in the program's log; never returns if the log is off.
pub(super) async fn something_logged(
    log: &mut Option<ProgramLog>,
) -> io::Result<AsyncFdReadyMutGuard<'_, EbpfLogger<&'static dyn Log>>> {
    match log {
        Some(log) => log.readable_mut().await,
        None => std::future::pending().await,
    }
}
