//! A connection with constant traffic in both directions.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{namespace::Namespace, net::Net, wait};

/// How long an answer may take before the connection counts as broken.
const DEAD: Duration = Duration::from_secs(10);
/// The pause between two round trips, so that other tests get processor time.
const PAUSE: Duration = Duration::from_micros(500);

/// The connection; it ends when this is dropped.
#[derive(Debug)]
pub struct Stream {
    counts: Arc<StreamCounts>,
    thread: Option<JoinHandle<io::Result<Duration>>>,
}

#[derive(Debug, Default)]
struct StreamCounts {
    stop: AtomicBool,
    round_trips: AtomicU64,
}

impl Stream {
    /// Begins to send to an echo.
    pub fn begin(stream: TcpStream) -> Self {
        let counts = Arc::new(StreamCounts::default());
        let mine = Arc::clone(&counts);
        Self {
            counts,
            thread: Some(thread::spawn(move || run(stream, &mine))),
        }
    }

    /// Returns the number of round trips so far.
    pub fn round_trips(&self) -> u64 {
        self.counts.round_trips.load(Ordering::Relaxed)
    }

    /// Waits for some more round trips.
    ///
    /// # Panics
    /// They don't happen in time.
    #[track_caller]
    pub fn continues(&self, row: &str) {
        let before = self.round_trips();
        wait::until(&format!("{row}: the connection continues"), || {
            self.round_trips() >= before + 3
        });
    }

    /// Ends it; returns the time of the slowest round trip.
    ///
    /// # Panics
    /// It has broken.
    #[track_caller]
    pub fn end(mut self) -> Duration {
        self.counts.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(slowest))) => slowest,
            other => panic!("the connection broke: {other:?}"),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
    }
}

fn run(mut stream: TcpStream, counts: &StreamCounts) -> io::Result<Duration> {
    stream.set_read_timeout(Some(DEAD))?;
    let mut slowest = Duration::ZERO;
    let mut sent = 0_u64;
    while !counts.stop.load(Ordering::Relaxed) {
        sent += 1;
        let begun = Instant::now();
        stream.write_all(&sent.to_be_bytes())?;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        if back != sent.to_be_bytes() {
            return Err(io::Error::other("something else came back"));
        }
        slowest = slowest.max(begun.elapsed());
        counts.round_trips.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    Ok(slowest)
}

/// Makes TCP send a segment twice only if it was lost: received data is acknowledged at once, also if no program reads
/// it, there are no loss probes, and the least retransmission timeout outlasts a pause of the machine.
///
/// # Panics
/// `ip` refuses.
#[track_caller]
pub fn repeat_only_what_is_lost(net: &Net) {
    for namespace in [&net.client, &net.server] {
        namespace.sysctl("ipv4/tcp_early_retrans", "0");
    }
    net.client
        .ip("route replace 192.0.2.0/25 dev a0 quickack 1 rto_min 10s");
    net.server
        .ip("route replace 198.51.100.0/24 via 192.0.2.1 quickack 1 rto_min 10s");
}

/// Returns how many segments a namespace has sent twice.
///
/// # Panics
/// `nstat` prints something else.
#[track_caller]
pub fn sent_twice(namespace: &Namespace) -> u64 {
    let output = namespace.run("nstat", &["-asz", "TcpRetransSegs"]);
    let count = output.lines().find_map(|line| {
        line.strip_prefix("TcpRetransSegs")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    count.unwrap_or_else(|| panic!("nstat printed {output}"))
}
