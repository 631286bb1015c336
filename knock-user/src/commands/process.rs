//! Runs one command.

use std::{
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{
    job::Job,
    report::{CommandReport, CommandResult},
    tail::Tail,
};
use crate::host::programs;

/// The time for a command to clean up after its time limit.
const GRACE: Duration = Duration::from_secs(2);
/// The interval of checks whether it has ended.
const GLANCE: Duration = Duration::from_millis(20);
/// How long output is read after the end: a background process may hold the pipe without end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs a command.
pub(super) async fn run(job: Job) -> CommandReport {
    let mut tail = Tail::default();
    let outcome = match start(&job) {
        Ok((group, output)) => attend(&job, group, output, &mut tail).await,
        Err(error) => CommandResult::NotStarted(error),
    };
    CommandReport {
        job,
        outcome,
        output: tail.lines(),
    }
}

fn start(job: &Job) -> io::Result<(ProcessGroup, pipe::Receiver)> {
    // One pipe for both streams keeps their lines in order.
    let (output, input) = io::pipe()?;
    let output = pipe::Receiver::from_owned_fd(OwnedFd::from(output))?;
    let child = Command::new(&job.command.program)
        .args(job.arguments())
        .env_clear()
        .env("PATH", programs::search_path())
        .envs(job.environment())
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((ProcessGroup::of(child), output))
}

async fn attend(
    job: &Job,
    mut group: ProcessGroup,
    mut output: pipe::Receiver,
    tail: &mut Tail,
) -> CommandResult {
    let deadline = Instant::now() + job.command.timeout;
    let ended = tokio::select! {
        ended = group.wait() => Some(ended),
        never = read(&mut output, tail) => match never {},
        () = tokio::time::sleep_until(deadline) => None,
    };
    let outcome = match ended {
        Some(Ok(status)) => CommandResult::Exited(status),
        Some(Err(error)) => CommandResult::Unknown(error),
        None => {
            tokio::select! {
                () = group.end() => {}
                never = read(&mut output, tail) => match never {},
            }
            CommandResult::TimedOut
        }
    };
    let _until_then = timeout(LAST_WORDS, drain(&mut output, tail)).await;
    outcome
}

/// Reads until every writer has closed the pipe, and then never returns.
async fn read(output: &mut pipe::Receiver, tail: &mut Tail) -> std::convert::Infallible {
    drain(output, tail).await;
    std::future::pending().await
}

/// Reads until every writer has closed the pipe.
async fn drain(output: &mut pipe::Receiver, tail: &mut Tail) {
    let mut buffer = [0; 4_096];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        tail.push(buffer.get(..count).unwrap_or_default());
    }
}

/// A command and its descendants, as far as they stay in its process group.
#[derive(Debug)]
struct ProcessGroup {
    child: Child,
    /// Its id, until the first process has been waited for; after that the id may be reused.
    leader: Option<Pid>,
}

impl ProcessGroup {
    fn of(child: Child) -> Self {
        let number = child.id().and_then(|id| i32::try_from(id).ok());
        let leader = number.map(Pid::from_raw);
        Self { child, leader }
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.leader = None;
        status
    }

    /// Terminates all processes, and kills those that remain.
    async fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && !self.has_ended() {
            sleep(GLANCE).await;
        }
        self.signal(Signal::SIGKILL);
        let _ignored = self.wait().await;
    }

    /// Returns whether the first process has ended, without reaping it.
    fn has_ended(&self) -> bool {
        let Some(leader) = self.leader else {
            return true;
        };
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(leader), flags), Ok(WaitStatus::StillAlive))
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            let _nobody_left = killpg(leader, signal);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}
