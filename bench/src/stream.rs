//! Measures the throughput of a TCP connection to an unused port.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use knock_tests::net::{Family, Net};

use crate::timing;

const PORT: u16 = 8080;
const CHUNK: usize = 64 << 10;
/// Long enough for the window to open.
const WARM_UP: Duration = Duration::from_millis(300);
/// The time for a SYN and two retransmissions.
const CONNECTING: Duration = Duration::from_secs(4);
/// How long one read or write waits; a stream without data then checks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// Returns the octets per second that arrive while both ends run on one CPU; 0 without a connection.
///
/// # Errors
/// The port is taken, or an end can't be bound to the CPU.
pub fn goodput(net: &Net, cpu: usize, during: Duration) -> Result<f64> {
    let listener = net
        .server
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .with_context(|| format!("listening on tcp/{PORT}"))?;
    let client = net.source(Family::V4.client(), Family::V4.server());
    let Ok(mut sending) = client.connect(PORT, CONNECTING) else {
        return Ok(0.0);
    };
    let (mut receiving, _) = listener.accept().context("accepting a stream")?;
    sending.set_write_timeout(Some(PATIENCE))?;
    receiving.set_read_timeout(Some(PATIENCE))?;
    let stop = Arc::new(AtomicBool::new(false));
    let arrived = Arc::new(AtomicU64::new(0));
    let reader = thread::spawn({
        let (stop, arrived) = (Arc::clone(&stop), Arc::clone(&arrived));
        move || -> Result<()> {
            timing::pin(cpu)?;
            let mut chunk = vec![0; CHUNK];
            while !stop.load(Ordering::Relaxed) {
                // A pause does not end the stream.
                if let Ok(length) = receiving.read(&mut chunk) {
                    arrived.fetch_add(length as u64, Ordering::Relaxed);
                }
            }
            Ok(())
        }
    });
    let writer = thread::spawn({
        let stop = Arc::clone(&stop);
        move || -> Result<()> {
            timing::pin(cpu)?;
            let chunk = vec![0; CHUNK];
            while !stop.load(Ordering::Relaxed) {
                // A full buffer does not end the stream.
                let _sent = sending.write(&chunk);
            }
            Ok(())
        }
    });
    // The stream reaches its speed before the measurement.
    thread::sleep(WARM_UP);
    let (began, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
    thread::sleep(during);
    let octets = arrived.load(Ordering::Relaxed) - before;
    let rate = octets as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for end in [reader, writer] {
        end.join()
            .map_err(|_| anyhow::anyhow!("an end of the stream panicked"))??;
    }
    Ok(rate)
}
