//! `knock-fleet`: the process that connects a host to the engine of its fleet.
//!
//! The daemon starts it with one end of a stream socket as its standard input; `knock-wire` has the lines
//! that both exchange there. A process of its own, because a TLS and HTTP/2 stack does not belong into one
//! that may change the kernel.
#![forbid(unsafe_code)]

mod beat;
mod cli;
mod clock;
mod engine;
mod feed;
mod follow;
mod input;
mod leases;
mod link;
mod members;
mod output;
mod pauses;
mod privileges;
mod session;
#[cfg(test)]
mod tests;
mod write;
mod writes;

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    panic,
    process::{self, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use tokio::task::LocalSet;

fn main() -> ExitCode {
    let cli::Cli {} = cli::Cli::parse();
    // A task that panics would leave the daemon without answers; it starts this program again.
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        default(info);
        process::exit(101);
    }));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("knock-fleet: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    privileges::drop_all()?;
    let socket = socket()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("setting up the event loop")?;
    let served = LocalSet::new().block_on(&runtime, async {
        let socket = tokio::net::UnixStream::from_std(socket).context("using standard input")?;
        let (from, to) = socket.into_split();
        let engine = engine::etcd::Etcd::new;
        session::run(from, to, pauses::PAUSES, engine)
            .await
            .map_err(anyhow::Error::msg)
    });
    // A lookup of a name may still run in a thread; it is not waited for.
    runtime.shutdown_background();
    served
}

/// Returns the socket that is standard input.
fn socket() -> Result<UnixStream> {
    let stdin = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("duplicating standard input")?;
    let socket = UnixStream::from(stdin);
    if socket.peer_addr().is_err() {
        bail!(
            "standard input is no connected socket; a daemon starts this program, which is not started by hand"
        );
    }
    socket
        .set_nonblocking(true)
        .context("setting up standard input")?;
    Ok(socket)
}
