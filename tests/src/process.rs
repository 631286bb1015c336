//! A child process: its lines are kept, and it is ended by its id and reaped.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{
    namespace::{Namespace, line, not_started},
    wait,
};

/// How long a process may take to end when it is asked to.
const FAREWELL: Duration = wait::PATIENCE;

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// The exit status and the output of a process.
#[derive(Clone, Debug)]
pub struct ProcessEnd {
    /// Its exit status.
    pub status: ExitStatus,
    /// Lines of its standard output.
    pub stdout: Vec<String>,
    /// Its standard error.
    pub stderr: String,
}

impl Process {
    /// Starts a command inside a namespace.
    ///
    /// # Panics
    /// It can't be started.
    #[track_caller]
    pub fn start(namespace: &Namespace, command: &mut Command) -> Self {
        let name = line(command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("STATE_DIRECTORY", namespace.state());
        let mut child = match namespace.enter(|| command.spawn()) {
            Ok(child) => child,
            Err(error) => panic!("{}", not_started(command, &error)),
        };
        let stdout = Lines::of(child.stdout.take());
        let stderr = Lines::of(child.stderr.take());
        Self {
            name,
            child,
            stdout,
            stderr,
        }
    }

    /// Returns its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the lines of its standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.until_now()
    }

    /// Returns its standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.until_now().join("\n")
    }

    /// Returns whether it has not ended.
    ///
    /// # Panics
    /// The kernel has no such process.
    pub fn is_running(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(status) => status.is_none(),
            Err(error) => panic!("waiting for `{}`: {error}", self.name),
        }
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Panics
    /// It does not end in time.
    #[track_caller]
    pub fn stop(mut self, signal: Signal) -> ProcessEnd {
        self.signal(signal);
        self.ended()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// It does not end in time.
    #[track_caller]
    pub fn wait(mut self) -> ProcessEnd {
        self.ended()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// It can't be sent.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Err(error) = signal::kill(self.pid(), signal)
        {
            panic!("{signal} to `{}`: {error}", self.name);
        }
    }

    #[track_caller]
    fn ended(&mut self) -> ProcessEnd {
        let status = wait::poll(FAREWELL, || self.child.try_wait().ok().flatten());
        let Some(status) = status else {
            panic!("`{}` does not end:\n{}", self.name, self.printed());
        };
        ProcessEnd {
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all().join("\n"),
        }
    }

    fn pid(&self) -> Pid {
        // Linux has no process ids above 2^22.
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Returns everything it printed, for the message of a failure.
    pub fn printed(&self) -> String {
        let stdout = self.stdout.until_now().join("\n");
        format!("{}\n{stdout}\n{}", self.name, self.stderr())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if thread::panicking() {
            eprintln!("{}", self.printed());
        }
        let _gone = signal::kill(self.pid(), Signal::SIGINT);
        if wait::poll(FAREWELL, || self.child.try_wait().ok().flatten()).is_none() {
            eprintln!("`{}` does not end on SIGINT: killing it", self.name);
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

/// The lines of a pipe, read by a thread.
#[derive(Debug)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let reader = pipe.map(|pipe| {
            thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    sink.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                }
            })
        });
        Self { lines, reader }
    }

    fn until_now(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for the end of the pipe. A grandchild that still holds it is not waited for.
    fn all(&mut self) -> Vec<String> {
        let closed = |reader: &JoinHandle<()>| reader.is_finished();
        let _closed = wait::poll(Duration::from_secs(2), || {
            self.reader.as_ref().is_none_or(closed).then_some(())
        });
        self.until_now()
    }
}
