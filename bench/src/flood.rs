//! `cargo xtask flood`: sends spoofed packets to a running knock-user in network namespaces of its own.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use knock_tests::{daemon::Daemon, net::SERVER_LINK};

use crate::{
    drop_cost::{TargetPort, spoofed},
    generator::{Generator, ReceivedFrames},
    link::one_queue,
    receiver::{CONFIG, ON_THE_LINK},
};

/// The packets of the flood, and the configuration of its target.
#[derive(Args, Clone, Debug)]
pub struct FloodOptions {
    /// Send this many packets a second; 0 sends as many as possible
    #[arg(long, default_value_t = 1_000_000)]
    rate: u32,
    /// Send them to this port, such as tcp/22 or udp/8000
    #[arg(long, default_value = "tcp/22")]
    port: TargetPort,
    /// Spoof this many sources; a power of two
    #[arg(long, default_value_t = 1 << 16, value_parser = power_of_two)]
    sources: u32,
    /// Send for this many seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Read the configuration of the flooded knock-user from this file, instead of the README's door
    #[arg(long)]
    config: Option<PathBuf>,
}

fn power_of_two(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        // The sources' network has no more addresses.
        Ok(number) if number.is_power_of_two() && number <= 1 << 24 => Ok(number),
        Ok(_) | Err(_) => Err("a power of two, 16777216 at most".to_owned()),
    }
}

/// Floods, and prints the result each second.
pub fn run(options: &FloodOptions) -> Result<()> {
    let config = match &options.config {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?
        }
        None => CONFIG.to_owned(),
    };
    let net = one_queue();
    let _daemon = Daemon::start_with(&net.server, &config, ON_THE_LINK);
    let TargetPort { protocol, port } = options.port;
    println!(
        "flooding {}/{port} from {} sources in network namespaces of their own",
        protocol.name(),
        options.sources
    );
    let (frame, plan) = spoofed(options.port, options.sources);
    let begun = ReceivedFrames::by(&net.server, SERVER_LINK);
    let flow = Generator::load()?.flow(&net, CPU, frame, plan, options.rate)?;
    let mut before = (Instant::now(), begun);
    for _ in 0..options.seconds {
        // The figures are per second.
        thread::sleep(Duration::from_secs(1));
        let now = (Instant::now(), ReceivedFrames::by(&net.server, SERVER_LINK));
        let seconds = (now.0 - before.0).as_secs_f64();
        let ReceivedFrames { frames, dropped } = now.1.since(before.1);
        println!(
            "{:>12.0} received a second, {:>12.0} of them dropped",
            frames as f64 / seconds,
            dropped as f64 / seconds
        );
        before = now;
    }
    let sent = flow.stop()?;
    let all = ReceivedFrames::by(&net.server, SERVER_LINK).since(begun);
    println!(
        "{} sent ({:.2} Mpps), {} received, {} dropped by the program",
        sent.frames,
        sent.rate() / 1e6,
        all.frames,
        all.dropped
    );
    Ok(())
}

/// The CPU that sends.
const CPU: usize = 0;
