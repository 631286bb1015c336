//! Serves clients the number of the next line of a one-time file.
//!
//! A client connects and sends the name of a door and a line end; an empty name means the only door
//! that has such a file. The reply is the number of the line and a line end. After any other request
//! the server closes the connection without a reply.
//!
//! No client can block the daemon or fill its memory: connections are limited in total, for each
//! source and per second, and so are the length of a name and the time of a request.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};

use crate::host::{listener::Listening, os_error};

/// The most connections at a time; further ones wait.
pub const CONNECTIONS_MAX: usize = 32;
/// The most connections of one source; further ones are closed.
pub const OF_A_SOURCE_MAX: usize = 4;
/// The average interval between connections.
pub const INTERVAL: Duration = Duration::from_millis(20);
/// The most connections without an interval after a pause.
const BURST: u32 = 32;
/// The time limit for a request and its reply.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The longest request: the name of a door and a line end, in bytes.
const QUESTION_MAX: u64 = 65;
/// IPv6 addresses that share this many bits count as one source.
const NETWORK_BITS: u32 = 64;

/// The server, which may be off.
#[derive(Debug, Default)]
pub struct NextLineServer {
    lines: Arc<NextLines>,
    listening: Listening,
}

/// The next lines by door name; none if the file can't be used.
type NextLines = Mutex<BTreeMap<String, Option<u32>>>;

impl NextLineServer {
    /// Listens at another address, or stops. If it can't listen, it logs a warning and keeps
    /// trying. It must be called inside a tokio runtime.
    pub fn listen(&mut self, at: Option<SocketAddr>) {
        let lines = Arc::clone(&self.lines);
        self.listening
            .move_to("[next_line]", at, |listener| serve(listener, lines));
    }

    /// Replaces the next lines of all doors.
    pub fn set_lines(&self, lines: BTreeMap<String, Option<u32>>) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = lines;
    }
}

async fn serve(listener: TcpListener, lines: Arc<NextLines>) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sources = Arc::new(ConnectionCounts::default());
    let mut pace = Pace::new(Instant::now());
    loop {
        sleep_until(pace.next(Instant::now())).await;
        // The semaphore is never closed, so this is never an error.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                if let Some(connection) = CountedConnection::admit(&sources, from.ip(), turn) {
                    let lines = Arc::clone(&lines);
                    tokio::spawn(async move {
                        let _late = timeout(PATIENCE, answer(stream, &lines)).await;
                        drop(connection);
                    });
                }
            }
            // This happens if descriptors are exhausted; the pace prevents a busy loop.
            Err(error) => {
                tracing::debug!(
                    "accepting a connection of a client: {}",
                    os_error::plain(&error)
                )
            }
        }
    }
}

/// Answers one request. An error concerns only this connection.
async fn answer(mut stream: TcpStream, lines: &NextLines) -> io::Result<()> {
    let mut question = Vec::new();
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read.take(QUESTION_MAX));
    read.read_until(b'\n', &mut question).await?;
    let Some(line) = next_line(&question, lines) else {
        return Ok(());
    };
    write.write_all(format!("{line}\n").as_bytes()).await?;
    write.shutdown().await
}

fn next_line(question: &[u8], lines: &NextLines) -> Option<u32> {
    let name = str::from_utf8(question.strip_suffix(b"\n")?).ok()?;
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if !name.is_empty() {
        return *lines.get(name)?;
    }
    let mut all = lines.values();
    let only = all.next()?;
    all.next().is_none().then_some(*only)?
}

/// Limits connections to an average rate with bursts.
#[derive(Debug)]
struct Pace {
    /// When the next connection is due at an even rate.
    due: Instant,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// Returns when the next connection is allowed.
    fn next(&mut self, now: Instant) -> Instant {
        self.due = self.due.max(now) + INTERVAL;
        // A burst is allowed before it is due.
        let early = INTERVAL.saturating_mul(BURST);
        self.due.checked_sub(early).unwrap_or(now)
    }
}

/// The number of connections of each source.
type ConnectionCounts = Mutex<BTreeMap<IpAddr, usize>>;

/// A connection that counts against the limits until it is dropped.
struct CountedConnection {
    from: IpAddr,
    sources: Arc<ConnectionCounts>,
    #[expect(dead_code, reason = "it is held")]
    turn: OwnedSemaphorePermit,
}

impl CountedConnection {
    /// Counts a connection; none if the source has too many.
    fn admit(
        sources: &Arc<ConnectionCounts>,
        from: IpAddr,
        turn: OwnedSemaphorePermit,
    ) -> Option<Self> {
        let from = network(from.to_canonical());
        let mut counts = sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        if *count >= OF_A_SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(Self {
            from,
            sources: Arc::clone(sources),
            turn,
        })
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut counts = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

/// Returns the network of an IPv6 address: a client can use all its addresses.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let others = u128::MAX >> NETWORK_BITS;
            Ipv6Addr::from_bits(v6.to_bits() & !others).into()
        }
    }
}

#[cfg(test)]
mod tests;
