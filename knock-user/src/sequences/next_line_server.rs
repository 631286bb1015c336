//! The central port: tells clients which line of a one-time file is next.
//!
//! A client connects and sends the name of a door and a line end; without a name it is the only
//! door that has such a file. It gets the number of the line and a line end, and that is all that is
//! ever said: to whatever else comes, the connection ends without a word.
//!
//! Nobody at the other end can hold the daemon or fill its memory: connections are bounded,
//! altogether, for each source and in a second, and so are the length of a name and the time that
//! it may take.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::host::os_error;
/// Connections at once; more wait for their turn.
pub const CONNECTIONS_MAX: usize = 32;
/// Those of one source; more are ended.
pub const OF_A_SOURCE_MAX: usize = 4;
/// From one connection to the next, on average.
pub const INTERVAL: Duration = Duration::from_millis(20);
/// Connections that may come at once after a while without any.
const BURST: u32 = 32;
/// How long a client may take to ask, and to hear the answer.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The longest name of a door, and a line end.
const QUESTION_MAX: u64 = 65;
/// Connections that wait for their turn.
const BACKLOG: i32 = 64;
/// When listening is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Addresses of the same network of IPv6, in bits that they share, are one source.
const NETWORK_BITS: u32 = 64;

/// The service, perhaps.
#[derive(Debug, Default)]
pub struct NextLineServer {
    at: Option<SocketAddr>,
    lines: Arc<Lines>,
    listening: Option<JoinHandle<()>>,
}

/// Which line is next, by the name of the door; none if its file is of no use.
type Lines = Mutex<BTreeMap<String, Option<u32>>>;

impl NextLineServer {
    /// Listens there from now on, or nowhere. It must be called inside a tokio runtime; where it
    /// can't listen, which is said, it goes on trying.
    pub fn listen(&mut self, at: Option<SocketAddr>) {
        if self.at == at {
            return;
        }
        self.at = at;
        // What listens at the same port would be in the way.
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
        // At once, because it may not be allowed later.
        self.listening = at.map(|at| {
            let listener = listener(at);
            if let Err(error) = &listener {
                tracing::warn!("{}", refusal(at, error));
            }
            tokio::spawn(serve(at, listener.ok(), Arc::clone(&self.lines)))
        });
    }

    /// Says from now on which line of each door is next.
    pub fn tell(&self, lines: BTreeMap<String, Option<u32>>) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = lines;
    }
}

impl Drop for NextLineServer {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }
}

fn refusal(at: SocketAddr, error: &io::Error) -> String {
    let kind = error.kind();
    let help = if kind == ErrorKind::AddrInUse {
        "somebody else listens there: choose another port for [next_line] listen"
    } else if kind == ErrorKind::PermissionDenied {
        "ports below 1024 can be had at the start only, and by root: choose a higher one for \
         [next_line] listen"
    } else {
        "knock-user tries again every few seconds"
    };
    format!(
        "[next_line] can't listen on {at}: {}; {help}",
        os_error::plain(error)
    )
}

fn listener(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(at),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // The address may come later, with its interface.
    match at {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_freebind_v6(true)?;
            // As people expect it of [::].
            socket.set_only_v6(false)?;
        }
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn serve(at: SocketAddr, mut listener: Option<TcpListener>, lines: Arc<Lines>) {
    let listener = loop {
        match listener.take() {
            Some(listener) => break listener,
            None => sleep(RETRY).await,
        }
        listener = self::listener(at).ok();
    };
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sources = Arc::new(Sources::default());
    let mut pace = Pace::new(Instant::now());
    loop {
        sleep_until(pace.next(Instant::now())).await;
        // Never closed, so never an error.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                if let Some(guest) = Guest::admit(&sources, from.ip(), turn) {
                    let lines = Arc::clone(&lines);
                    tokio::spawn(async move {
                        let _late = timeout(PATIENCE, answer(stream, &lines)).await;
                        drop(guest);
                    });
                }
            }
            // As when descriptors are used up; the pace keeps this from spinning.
            Err(error) => {
                tracing::debug!("a client could not be heard: {}", os_error::plain(&error))
            }
        }
    }
}

/// What goes wrong on a connection concerns nobody else.
async fn answer(mut stream: TcpStream, lines: &Lines) -> io::Result<()> {
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

fn next_line(question: &[u8], lines: &Lines) -> Option<u32> {
    let name = str::from_utf8(question.strip_suffix(b"\n")?).ok()?;
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if !name.is_empty() {
        return *lines.get(name)?;
    }
    let mut all = lines.values();
    let only = all.next()?;
    all.next().is_none().then_some(*only)?
}

/// Lets so many pass in a while, some of them at once.
#[derive(Debug)]
struct Pace {
    /// When the next one would come if they came evenly.
    due: Instant,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// When the next one may come.
    fn next(&mut self, now: Instant) -> Instant {
        self.due = self.due.max(now) + INTERVAL;
        // As much as may come at once is let in before it is due.
        let early = INTERVAL.saturating_mul(BURST);
        self.due.checked_sub(early).unwrap_or(now)
    }
}

/// How many connections each source has.
type Sources = Mutex<BTreeMap<IpAddr, usize>>;

/// A connection that counts.
struct Guest {
    from: IpAddr,
    sources: Arc<Sources>,
    #[expect(dead_code, reason = "it is held")]
    turn: OwnedSemaphorePermit,
}

impl Guest {
    /// Nothing if there are too many of that source.
    fn admit(sources: &Arc<Sources>, from: IpAddr, turn: OwnedSemaphorePermit) -> Option<Self> {
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

impl Drop for Guest {
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

/// Who has one address of a network of IPv6 has them all.
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
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    /// Longer than anything takes here.
    const LONG: Duration = Duration::from_secs(60);

    fn lines(doors: &[(&str, Option<u32>)]) -> BTreeMap<String, Option<u32>> {
        let doors = doors.iter();
        doors
            .map(|(name, line)| ((*name).to_owned(), *line))
            .collect()
    }

    /// A service somewhere.
    fn started(doors: &[(&str, Option<u32>)]) -> (NextLineServer, SocketAddr) {
        let listener = listener(HERE).unwrap();
        let at = listener.local_addr().unwrap();
        let server = NextLineServer::default();
        server.tell(lines(doors));
        let serving = tokio::spawn(serve(at, Some(listener), Arc::clone(&server.lines)));
        let server = NextLineServer {
            at: Some(at),
            lines: Arc::clone(&server.lines),
            listening: Some(serving),
        };
        (server, at)
    }

    /// Everything that is said to who sends this; a connection that is reset has an end too.
    async fn told(at: SocketAddr, question: &[u8]) -> String {
        let asking = async {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let _gone = stream.write_all(question).await;
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        };
        timeout(LONG, asking).await.unwrap()
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(test);
    }

    /// Name, doors, question, answer.
    type Row<'a> = (&'a str, &'a [(&'a str, Option<u32>)], &'a [u8], &'a str);

    #[test]
    fn what_is_asked_and_answered() {
        let one: &[(&str, Option<u32>)] = &[("ssh", Some(12))];
        let two: &[(&str, Option<u32>)] = &[("ssh", Some(12)), ("web", Some(3)), ("old", None)];
        let long = [b'a'; 1 << 16];
        let rows: [Row<'_>; 11] = [
            ("a door", two, b"ssh\n", "12\n"),
            ("another", two, b"web\n", "3\n"),
            ("its file is used up", two, b"old\n", ""),
            ("no such door", two, b"nobody\n", ""),
            ("no name, several doors", two, b"\n", ""),
            ("no name, one door", one, b"\n", "12\n"),
            ("no name, no door", &[], b"\n", ""),
            ("more than a name", one, b"ssh\nssh\n", "12\n"),
            ("not a text", one, b"\xff\n", ""),
            ("Windows", one, b"ssh\r\n", ""),
            ("without an end", one, &long, ""),
        ];
        run(async {
            for (name, doors, question, answer) in rows {
                let (_server, at) = started(doors);
                assert_eq!(told(at, question).await, answer, "{name}");
            }
        });
    }

    #[test]
    fn what_is_told_changes() {
        run(async {
            let (server, at) = started(&[("ssh", Some(1))]);
            assert_eq!(told(at, b"ssh\n").await, "1\n");
            server.tell(lines(&[("ssh", Some(2))]));
            assert_eq!(told(at, b"ssh\n").await, "2\n");
        });
    }

    /// Those who say nothing are in nobody's way, and not for ever.
    #[test]
    fn who_says_nothing_is_let_go() {
        run(async {
            let (_server, at) = started(&[("ssh", Some(1))]);
            let mut silent = Vec::new();
            for _ in 0..OF_A_SOURCE_MAX {
                silent.push(TcpStream::connect(at).await.unwrap());
            }
            let mut many = TcpStream::connect(at).await.unwrap();
            let mut answer = Vec::new();
            let asked = timeout(LONG, many.read_to_end(&mut answer)).await;
            assert_eq!(asked.unwrap().unwrap_or(0), 0, "one too many");
            for mut stream in silent {
                let mut answer = Vec::new();
                let ended = timeout(LONG, stream.read_to_end(&mut answer)).await;
                assert_eq!(ended.unwrap().unwrap_or(0), 0);
            }
            assert_eq!(told(at, b"ssh\n").await, "1\n", "there is room again");
        });
    }

    #[test]
    fn it_moves_and_ends() {
        run(async {
            let taken = listener(HERE).unwrap();
            let at = taken.local_addr().unwrap();
            let mut server = NextLineServer::default();
            server.tell(lines(&[("ssh", Some(1))]));
            server.listen(Some(at));
            drop(taken);
            // What could not be had at first is had later.
            let end = Instant::now() + LONG;
            while TcpStream::connect(at).await.is_err() {
                assert!(Instant::now() < end, "it does not try again");
                sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(told(at, b"ssh\n").await, "1\n");
            server.listen(None);
            while TcpStream::connect(at).await.is_ok() {
                assert!(Instant::now() < end, "it goes on");
                sleep(Duration::from_millis(10)).await;
            }
            server.listen(Some(at));
            assert_eq!(told(at, b"ssh\n").await, "1\n");
        });
    }

    #[test]
    fn the_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for number in 1..=BURST {
            assert!(pace.next(start) <= start, "{number}");
        }
        assert_eq!(pace.next(start), start + INTERVAL);
        assert_eq!(pace.next(start), start + INTERVAL * 2);
        let later = start + LONG;
        assert!(pace.next(later) <= later, "it has rested");
    }

    #[test]
    fn who_is_one_source() {
        for (address, source) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let [address, source]: [IpAddr; 2] = [address, source].map(|a| a.parse().unwrap());
            assert_eq!(network(address), source);
        }
    }
}
