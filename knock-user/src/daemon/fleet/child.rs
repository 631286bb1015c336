//! The process `knock-fleet`: started, watched, started again, and its lines.

use std::{
    env, io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use knock_wire::{
    Full, LONGEST_LINE, LONGEST_QUEUE, Queue, Report, Request, Unreadable, printable, read_line,
    to_line,
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    process::{Child, ChildStderr, Command},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::host::{os_error, programs};

/// The name of the program.
const PROGRAM: &str = "knock-fleet";
/// The first and the longest pause before it is started again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// A process that has lived this long begins with the first pause again.
const STEADY: Duration = Duration::from_secs(60);
/// How long an end is waited for before the process is killed.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The most characters of its last line that an error quotes.
const QUOTED: usize = 300;

/// What happened to the process.
#[derive(Debug)]
pub(in crate::daemon) enum Told {
    /// It was started: it waits for its settings.
    Started(Outgoing),
    /// It reports something.
    Report(Box<Report>),
    /// It has ended, or could not be started; it is started again later.
    Ended(String),
}

/// Lines to one process.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Outgoing {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue<Request>>,
    changed: Notify,
    /// The process is to be replaced.
    is_given_up: Notify,
}

impl Outgoing {
    fn new() -> Self {
        Self {
            shared: Arc::new(Shared::default()),
        }
    }

    /// Adds a line. If too many wait already, another process is started, which lists again.
    pub(super) fn send(&self, request: Request) {
        let mut queue = self
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match queue.push(request) {
            Ok(_) => self.shared.changed.notify_one(),
            Err(Full) => self.shared.is_given_up.notify_one(),
        }
    }

    /// Returns how many lines wait.
    pub(super) fn waiting(&self) -> usize {
        let queue = self.shared.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).len()
    }

    fn pop(&self) -> Option<Request> {
        let queue = self.shared.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// The process, and what keeps it running; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    told: mpsc::Receiver<Told>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Begins to keep a process running, in the runtime of the caller.
    pub(super) fn start() -> Self {
        let (sender, told) = mpsc::channel(LONGEST_QUEUE);
        Self {
            told,
            task: tokio::spawn(keep(sender)),
        }
    }

    /// Waits for what happens next.
    pub(super) async fn told(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// Returns what has happened already.
    pub(super) fn told_already(&mut self) -> Option<Told> {
        self.told.try_recv().ok()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The process is killed with its handle.
        self.task.abort();
    }
}

async fn keep(told: mpsc::Sender<Told>) {
    let [first, longest] = PAUSES;
    let mut pause = first;
    loop {
        let began = Instant::now();
        let reason = run(&told).await;
        if told.send(Told::Ended(reason)).await.is_err() {
            return;
        }
        if began.elapsed() >= STEADY {
            pause = first;
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Runs one process to its end; returns why it ended.
async fn run(told: &mpsc::Sender<Told>) -> String {
    let (mut child, stream) = match start() {
        Ok(started) => started,
        Err(error) => return not_started(&error),
    };
    let stderr = child.stderr.take();
    let (reader, writer) = stream.into_split();
    let outgoing = Outgoing::new();
    if told.send(Told::Started(outgoing.clone())).await.is_err() {
        return String::new();
    }
    let mut last_line = String::new();
    let cause = tokio::select! {
        cause = read(BufReader::new(reader), told) => cause,
        cause = write(writer, &outgoing) => cause,
        () = follow_errors(stderr, &mut last_line) => None,
        () = outgoing.shared.is_given_up.notified() => {
            Some(format!("{LONGEST_QUEUE} lines wait for it, so another one is started"))
        }
    };
    let ended = match timeout(LAST_WORDS, child.wait()).await {
        Ok(Ok(status)) => Some(status),
        Ok(Err(_)) | Err(_) => None,
    };
    let _gone = child.kill().await;
    reason(cause, ended, &last_line)
}

fn start() -> io::Result<(Child, UnixStream)> {
    let (own, other) = std::os::unix::net::UnixStream::pair()?;
    own.set_nonblocking(true)?;
    let child = Command::new(program())
        .env_clear()
        .stdin(OwnedFd::from(other))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, UnixStream::from_std(own)?))
}

/// Returns the program beside this one, or else the one in `PATH`.
fn program() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    let beside = own.with_file_name(PROGRAM);
    if beside.is_file() {
        return beside;
    }
    let path = programs::search_path();
    let found = env::split_paths(&path)
        .map(|directory| directory.join(PROGRAM))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| PROGRAM.into())
}

fn not_started(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return format!(
            "there is no program {PROGRAM}: install the package {PROGRAM}, or put the program beside knock-user"
        );
    }
    let reason = os_error::reason(error, PROGRAM);
    format!("{PROGRAM} can't be started: {reason}")
}

/// Passes reports on until there are none.
async fn read(mut lines: impl AsyncBufRead + Unpin, told: &mpsc::Sender<Told>) -> Option<String> {
    let most = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(most).read_until(b'\n', &mut line).await {
            Ok(1..) if line.ends_with(b"\n") => {}
            Ok(count) if count >= LONGEST_LINE => return Some(Unreadable::Long.to_string()),
            Ok(_) | Err(_) => return None,
        }
        let text = String::from_utf8_lossy(&line);
        match read_line::<Report>(&text) {
            Ok(report) => {
                if told.send(Told::Report(Box::new(report))).await.is_err() {
                    return None;
                }
            }
            Err(error) => {
                return Some(format!(
                    "its lines can't be understood, use the same version of both programs: {error}"
                ));
            }
        }
    }
}

/// Sends what waits until nobody reads it.
async fn write(mut to: OwnedWriteHalf, outgoing: &Outgoing) -> Option<String> {
    loop {
        while let Some(request) = outgoing.pop() {
            let line = match to_line(&request) {
                Ok(line) => line,
                Err(error) => return Some(error.to_string()),
            };
            if to.write_all(line.as_bytes()).await.is_err() {
                // What it said last is still to be read.
                return std::future::pending().await;
            }
        }
        outgoing.shared.changed.notified().await;
    }
}

/// Keeps the last line of its standard error, without end.
async fn follow_errors(stderr: Option<ChildStderr>, last: &mut String) {
    if let Some(stderr) = stderr {
        let mut lines = BufReader::new(stderr.take(1 << 20)).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            *last = printable(&line).chars().take(QUOTED).collect();
        }
    }
    std::future::pending().await
}

fn reason(cause: Option<String>, ended: Option<ExitStatus>, last_line: &str) -> String {
    let how = match ended {
        Some(status) => format!("{PROGRAM} has ended ({status})"),
        None => format!("{PROGRAM} was ended"),
    };
    let why = cause.or_else(|| (!last_line.is_empty()).then(|| last_line.to_owned()));
    match why {
        Some(why) => format!("{how}: {why}"),
        None => how,
    }
}
