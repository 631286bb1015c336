//! The command line.

use clap::Parser;

/// Connect this host to the engine of its fleet
///
/// knock-user starts this program when its configuration has `[fleet]`, as its child and without any
/// capability. It reads requests from the socket that is its standard input, and writes reports to it, one
/// line of JSON each. It connects to the members of an etcd with TLS, reads and writes sealed records there,
/// and knows no meaning of them.
///
/// It ends when knock-user does. Nobody needs to start it by hand.
#[derive(Debug, Parser)]
#[command(name = "knock-fleet", version)]
pub(crate) struct Cli {}
