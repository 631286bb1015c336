//! The command line.

use clap::Parser;

/// Connect this host to the engine of its fleet
///
/// This program is the child of a daemon, which starts it with a socket as its standard input. It drops every
/// capability, reads requests from the socket and writes reports to it, one line of JSON each. It connects to
/// the members of an etcd, with TLS if their URLs ask for it, and reads and writes records there whose meaning
/// it does not know.
///
/// It ends when the daemon closes the socket. It is not started by hand.
#[derive(Debug, Parser)]
#[command(name = "knock-fleet", version)]
pub(crate) struct Cli {}
