//! The command line.

use crate::duration::parse_duration;
use crate::knock::{Knock, Protocol};
use crate::report::Style;
use crate::target::Family;
use clap::Parser;
use std::time::Duration;

const EXAMPLES: &str = "\
Knocks are tcp/PORT (a SYN) and udp/PORT (one byte). What knockd's client takes is understood \
too: PORT (TCP), PORT:tcp and PORT:udp.

Examples:
  knock-client example.org tcp/7000 udp/8000 tcp/9000
  knock-client example.org tcp/7000 udp/8000 tcp/9000 --then-connect 22 && ssh example.org
  knock-client fe80::1%eth0 udp/7000 udp/8000 --delay 5ms -v
  knock-client -6 example.org 7000 8000:udp 9000:tcp

Exit codes: 0 done (and connected, if asked to), 1 could not do it, 2 bad usage.";

/// Knock on the ports of a host, so that it opens another one for this machine
#[derive(Debug, Parser)]
#[command(name = "knock-client", version, after_help = EXAMPLES)]
pub struct Args {
    /// Whom to knock on: a name, or an IPv4 or IPv6 address
    #[arg(value_name = "HOST", value_parser = parse_host)]
    pub host: String,

    /// What to knock on, in this order
    #[arg(value_name = "KNOCK", required = true)]
    pub knocks: Vec<Knock>,

    /// The pause between knocks; a few ms where the network changes the order of packets
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = parse_duration)]
    pub delay: Duration,

    /// After the last knock connect to this TCP port at once, and again until it is open
    #[arg(long, value_name = "PORT", value_parser = parse_tcp_port)]
    pub then_connect: Option<u16>,

    /// How long after the last knock to keep trying to connect
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// Use IPv4 only
    #[arg(short = '4', conflicts_with = "only_v6")]
    pub only_v4: bool,

    /// Use IPv6 only
    #[arg(short = '6')]
    pub only_v6: bool,

    /// Print one JSON object per line for each knock, the connection or the failure
    #[arg(long)]
    pub json: bool,

    /// Print the address and each knock
    #[arg(short, long)]
    pub verbose: bool,
}

impl Args {
    /// The only family to use, if there is such a wish.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        match (self.only_v4, self.only_v6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            (false, false) => None,
        }
    }

    /// How to tell what happens.
    #[must_use]
    pub fn style(&self) -> Style {
        match (self.json, self.verbose) {
            (true, _) => Style::Json,
            (false, true) => Style::Verbose,
            (false, false) => Style::Quiet,
        }
    }
}

fn parse_host(word: &str) -> Result<String, String> {
    if word.is_empty() || word.contains('/') {
        return Err(format!(
            "'{word}' is not a host: the host comes first, then the knocks"
        ));
    }
    Ok(word.to_owned())
}

fn parse_tcp_port(word: &str) -> Result<u16, String> {
    match word.parse::<Knock>() {
        Ok(Knock {
            protocol: Protocol::Tcp,
            port,
        }) => Ok(port),
        Ok(Knock {
            protocol: Protocol::Udp,
            ..
        }) => Err(format!(
            "'{word}' cannot be connected to: write a TCP port, such as 22 or tcp/22"
        )),
        Err(_) => Err(format!(
            "'{word}' is not a TCP port from 1 to 65535, such as 22 or tcp/22"
        )),
    }
}

fn parse_timeout(word: &str) -> Result<Duration, String> {
    match parse_duration(word) {
        Ok(Duration::ZERO) => Err(format!(
            "'{word}' leaves no time to connect: write 1ms or more"
        )),
        Ok(limit) => Ok(limit),
        Err(error) => Err(error.to_string()),
    }
}
