//! Runs test programs side by side, each in namespaces of its own.
//!
//! Each has its own mounts, process ids and network, its own bpffs and `/run`: links, namespaces, pins and
//! control sockets of one are not seen by another. They share processors and memory.

use std::{
    collections::VecDeque,
    ffi::OsString,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    progress::{self, CommandProgress},
    report::RunReport,
    suite::Suites,
};

/// After this time a program hangs.
pub const LIMIT: Duration = Duration::from_secs(900);

/// The script that runs a program: its first process mounts file systems and reaps orphans.
const INSIDE: &str = "mount -t sysfs sysfs /sys; mount -t bpf bpf /sys/fs/bpf; \
    mount -t tmpfs -o mode=755 run /run; mkdir -p /run/netns /run/sshd /run/lock; \
    ip link set lo up; \"$@\"";

/// The suites that take longest, longest first, so that the last ones to start are short.
const LONG: [&str; 9] = [
    "otp",
    "one_time",
    "scan",
    "flood",
    "verdicts",
    "handshake",
    "proxy",
    "reload",
    "crash",
];

/// Suites that run while no other does, because they have deadlines or need the machine's memory.
const ALONE: [&str; 3] = ["confirm", "knock", "load"];

/// A test program.
#[derive(Clone, Debug)]
pub struct TestProgram {
    /// Its suite, as in `scan (tests/scan.rs)`.
    pub suite: String,
    /// The executable.
    pub path: PathBuf,
}

impl TestProgram {
    fn target(&self) -> &str {
        self.suite.split(' ').next().unwrap_or_default()
    }
}

/// The environment of the programs.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The directory they start in.
    pub directory: PathBuf,
    /// Their variables.
    pub variables: Vec<(&'static str, OsString)>,
    /// Their arguments: options of libtest and a filter.
    pub arguments: Vec<String>,
    /// After this time a program hangs.
    pub limit: Duration,
}

/// Runs programs, as many at a time as there are processors and one more, because they mostly wait, then
/// those that are to be alone. Adds what they report. Returns those of which tests ran.
///
/// # Errors
/// A program can't be started.
pub fn run(
    name: &str,
    programs: &[TestProgram],
    setting: &Setting,
    report: &mut RunReport,
) -> Result<Vec<TestProgram>> {
    let (alone, mut shared): (Vec<_>, Vec<_>) = programs
        .iter()
        .cloned()
        .partition(|program| ALONE.contains(&program.target()));
    shared.sort_by_key(|program| {
        let place = LONG.iter().position(|long| *long == program.target());
        place.unwrap_or(LONG.len())
    });
    let lanes = thread::available_parallelism().map_or(2, |processors| processors.get() + 1);
    let mut progress = CommandProgress::new(name);
    let mut with_tests = Vec::new();
    for (lanes, programs) in [(lanes, shared), (1, alone)] {
        with_tests.extend(side_by_side(
            lanes,
            programs,
            setting,
            report,
            &mut progress,
        )?);
    }
    Ok(with_tests)
}

/// The result of a program.
struct ProgramRun {
    program: TestProgram,
    took: Duration,
    output: std::io::Result<Output>,
}

fn side_by_side(
    lanes: usize,
    programs: Vec<TestProgram>,
    setting: &Setting,
    report: &mut RunReport,
    progress: &mut CommandProgress,
) -> Result<Vec<TestProgram>> {
    let (all, mut done) = (programs.len(), 0);
    let mut with_tests = Vec::new();
    let queue = Mutex::new(VecDeque::from(programs));
    let running = Mutex::new(Vec::<String>::new());
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..lanes {
            let sender = sender.clone();
            scope.spawn(|| {
                let sender = sender;
                loop {
                    let next = held(&queue).pop_front();
                    let Some(program) = next else { break };
                    let target = program.target().to_owned();
                    held(&running).push(target.clone());
                    let began = Instant::now();
                    let output = command(&program, setting).output();
                    held(&running).retain(|one| *one != target);
                    let took = began.elapsed();
                    let ran = ProgramRun {
                        program,
                        took,
                        output,
                    };
                    if sender.send(ran).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        loop {
            match results.recv_timeout(progress::TICK) {
                Ok(ran) => {
                    done += 1;
                    progress.note_output();
                    with_tests.extend(show(ran, setting.limit, report)?);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let running = held(&running).join(", ");
                    progress.tick(&format!("{done} of {all} done, now {running}"));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(with_tests),
            }
        }
    })
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the command that runs a program; the end of the first process is that of all others.
fn command(program: &TestProgram, setting: &Setting) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--kill-after=5"])
        .arg(setting.limit.as_secs().to_string())
        .args(["unshare", "--mount", "--pid", "--net", "--fork"])
        .args(["--kill-child", "--mount-proc", "--propagation", "private"])
        .args(["sh", "-euc", INSIDE, "inside"])
        .arg(&program.path)
        .args(&setting.arguments)
        .envs(setting.variables.iter().map(|(name, value)| (name, value)))
        .current_dir(&setting.directory)
        .stdin(Stdio::null());
    command
}

/// Prints what a program printed and adds it to the report. Returns the program if it has tests.
fn show(ran: ProgramRun, limit: Duration, report: &mut RunReport) -> Result<Option<TestProgram>> {
    let ProgramRun {
        program,
        took,
        output,
    } = ran;
    let seconds = took.as_secs_f64();
    let output = match output {
        Ok(output) => output,
        Err(why) => {
            report.fail(
                &format!("{}: can't be started: {why}", program.suite),
                seconds,
            );
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let mut suites = Suites::default();
    suites.line(&format!(
        "Running {} ({})",
        source(&program.suite),
        program.path.display()
    ));
    text.lines().for_each(|line| suites.line(line));
    suites.end();
    let passed = output.status.success();
    let name = if took >= limit {
        format!("{}: no end after {} s", program.suite, limit.as_secs())
    } else {
        program.suite.clone()
    };
    let any = report.take(&name, suites, passed, seconds);
    if any || !passed {
        println!(
            "\n     Running {} ({})",
            program.suite,
            progress::time(took)
        );
        print!("{text}");
    }
    Ok(any.then_some(program))
}

/// Returns `tests/scan.rs` of `scan (tests/scan.rs)`.
fn source(suite: &str) -> &str {
    let inner = suite.split_once(" (").map(|(_target, rest)| rest);
    inner.unwrap_or(suite).trim_end_matches(')')
}
