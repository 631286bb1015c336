//! A running knock-user, and its output with `--json`.

use std::{
    fs,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    binary::binaries,
    namespace::{Namespace, text},
    net::SERVER_LINK,
    pins::{are_unloaded, attached_programs},
    process::{Process, ProcessEnd},
    wait::{self, PATIENCE},
};

/// knock-user, attached.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    /// Deleted with the daemon and not earlier, because a reload reads it.
    config: NamedTempFile,
    programs: Vec<u32>,
}

/// Returns a configuration as a file.
///
/// # Panics
/// It can't be written.
#[track_caller]
pub fn config_file(config: &[u8]) -> NamedTempFile {
    let file = tempfile::Builder::new()
        .prefix("knock-test-")
        .suffix(".toml")
        .tempfile()
        .and_then(|mut file| file.write_all(config).map(|()| file));
    match file {
        Ok(file) => file,
        Err(error) => panic!("writing a configuration: {error}"),
    }
}

/// Returns the command that runs knock-user with this configuration and no further arguments.
pub fn command(config: &NamedTempFile) -> Command {
    let mut command = Command::new(&binaries().user);
    command.arg("--config").arg(config.path());
    command
}

impl Daemon {
    /// Protects the server's interface.
    ///
    /// # Panics
    /// It does not succeed.
    #[track_caller]
    pub fn start(namespace: &Namespace, config: &str) -> Self {
        Self::start_with(namespace, config, &["--iface", SERVER_LINK])
    }

    /// Starts with these arguments, besides `--config` and `--json`.
    ///
    /// # Panics
    /// It does not attach.
    #[track_caller]
    pub fn start_with(namespace: &Namespace, config: &str, arguments: &[&str]) -> Self {
        let file = config_file(config.as_bytes());
        let mut command = command(&file);
        command.arg("--json").args(arguments);
        let mut process = Process::start(namespace, command.stdin(Stdio::null()));
        let attached = wait::poll(PATIENCE, || {
            let protecting = |line: &String| line.contains("\"protecting\"");
            let attached = process.stdout().iter().any(protecting);
            (attached || !process.is_running()).then_some(attached)
        });
        assert_eq!(
            attached,
            Some(true),
            "knock-user does not protect:\n{}",
            process.printed()
        );
        Self {
            process,
            config: file,
            programs: attached_programs(namespace),
        }
    }

    /// Returns the process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns the process, to be signalled.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns the programs that were attached when it started.
    pub fn programs(&self) -> &[u32] {
        &self.programs
    }

    /// Writes another configuration, which the next reload reads.
    ///
    /// # Panics
    /// It can't be written.
    #[track_caller]
    pub fn rewrite(&self, config: &str) {
        if let Err(error) = fs::write(self.config.path(), config) {
            panic!("writing a configuration: {error}");
        }
    }

    /// Reloads with another configuration and waits until that is in force; returns the event.
    ///
    /// # Panics
    /// It does not succeed.
    #[track_caller]
    pub fn reload(&mut self, config: &str) -> Value {
        let reloaded = json!({"event": "reloaded"});
        let before = self.events_like(&reloaded).len();
        self.rewrite(config);
        self.process.signal(Signal::SIGHUP);
        let reload = wait::poll(PATIENCE, || {
            self.events_like(&reloaded).into_iter().nth(before)
        });
        reload.unwrap_or_else(|| panic!("nothing is reloaded:\n{}", self.process.printed()))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// It has ended already.
    #[track_caller]
    pub fn kill(self) -> ProcessEnd {
        let ended = self.end_by(Signal::SIGKILL);
        assert_eq!(
            ended.status.signal(),
            Some(Signal::SIGKILL as i32),
            "it ended before: {ended:?}"
        );
        ended
    }

    /// Stops a daemon that keeps its protection.
    ///
    /// # Panics
    /// It does not end, or ends with a failure.
    #[track_caller]
    pub fn leave(self, signal: Signal) -> ProcessEnd {
        let ended = self.end_by(signal);
        assert!(
            ended.status.success(),
            "knock-user ended with {}:\n{}\n{}",
            ended.status,
            ended.stdout.join("\n"),
            ended.stderr
        );
        ended
    }

    /// Sends a signal and waits for the end; any exit code is accepted.
    ///
    /// # Panics
    /// It does not end.
    #[track_caller]
    pub fn end_by(self, signal: Signal) -> ProcessEnd {
        self.process.stop(signal)
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It does not end.
    #[track_caller]
    pub fn wait(self) -> ProcessEnd {
        self.process.wait()
    }

    /// Returns the lines that it has printed so far.
    pub fn events(&self) -> Vec<Value> {
        events(&self.process.stdout())
    }

    /// Returns the events so far that have all these fields.
    pub fn events_like(&self, pattern: &Value) -> Vec<Value> {
        let matching = |event: &Value| has(event, pattern);
        self.events().into_iter().filter(matching).collect()
    }

    /// Waits for an event with these fields.
    ///
    /// # Panics
    /// It is not reported in time.
    #[track_caller]
    pub fn wait_for_event(&self, pattern: &Value) -> Value {
        wait_for_event(&self.process, pattern)
    }

    /// Waits until everything that happened before is reported. Events come in order, so the event of a packet that
    /// only this function sends marks the place.
    ///
    /// # Panics
    /// It is not reported in time.
    #[track_caller]
    pub fn catches_up(&self, marker: &crate::source::Source<'_>, port: u16) {
        let pattern = json!({"event": "denied", "source": marker.name()});
        // The event limit for drops may be reached at the moment.
        let seen = wait::poll(PATIENCE, || {
            if self.events_like(&pattern).is_empty() {
                let _closed = marker.connect(port, Duration::from_millis(20));
                return None;
            }
            Some(())
        });
        assert!(seen.is_some(), "no {pattern}:\n{}", self.process.printed());
    }

    /// Stops it and checks that its programs are gone.
    ///
    /// # Panics
    /// It does not end, ends with a failure, or leaves a program behind.
    #[track_caller]
    pub fn stop(self) -> ProcessEnd {
        self.stop_by(Signal::SIGINT)
    }

    /// Stops it by this signal; otherwise as [`Daemon::stop`].
    ///
    /// # Panics
    /// As [`Daemon::stop`].
    #[track_caller]
    pub fn stop_by(self, signal: Signal) -> ProcessEnd {
        let programs = self.programs.clone();
        assert!(!programs.is_empty(), "no program was seen while it ran");
        let ended = self.leave(signal);
        are_unloaded(&programs);
        ended
    }
}

/// Runs knock-user as an administrator's command to its end; returns its exit code and its output.
///
/// # Panics
/// It can't be started, or panics.
#[track_caller]
pub fn ask(namespace: &Namespace, arguments: &[&str]) -> (Option<i32>, String) {
    let user = binaries().user.display().to_string();
    let output = namespace.try_run(&user, arguments);
    let printed = text(&output);
    assert!(!printed.contains("panicked"), "{arguments:?}: {printed}");
    (output.status.code(), printed)
}

/// Removes what is protected in a network namespace.
///
/// # Panics
///
/// It fails.
#[track_caller]
pub fn detach(namespace: &Namespace) {
    let (code, answer) = ask(namespace, &["detach"]);
    assert_eq!(code, Some(0), "{answer}");
}

/// Waits for an event with these fields from a knock-user with `--json`.
///
/// # Panics
/// It is not reported in time.
#[track_caller]
pub fn wait_for_event(process: &Process, pattern: &Value) -> Value {
    let event = wait::poll(PATIENCE, || {
        let mut events = events(&process.stdout()).into_iter();
        events.find(|event| has(event, pattern))
    });
    event.unwrap_or_else(|| panic!("no event {pattern} among:\n{}", process.printed()))
}

/// Lines of `--json` as data.
///
/// # Panics
/// A line is not JSON.
#[track_caller]
pub fn events(lines: &[String]) -> Vec<Value> {
    let parse = |line: &String| match serde_json::from_str(line) {
        Ok(event) => event,
        Err(error) => panic!("`{line}` is not JSON: {error}"),
    };
    lines.iter().map(parse).collect()
}

/// Returns whether an event has all the fields of a pattern.
pub fn has(event: &Value, pattern: &Value) -> bool {
    let Some(fields) = pattern.as_object() else {
        return false;
    };
    fields
        .iter()
        .all(|(name, value)| event.get(name) == Some(value))
}
