//! Runs commands and shows their output, or the elapsed time instead of it.

use std::{
    io::{self, Read as _, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
};

use anyhow::{Context as _, Error, Result, bail};
use xshell::Cmd;

use crate::{
    network,
    progress::{self, CommandProgress},
};

/// The result of a command.
#[derive(Debug)]
pub struct RunOutcome {
    /// Whether it succeeded.
    pub passed: bool,
    /// For a command that failed because a server could not be reached, its error.
    pub unreachable: Option<String>,
}

impl RunOutcome {
    /// Returns an error for a command that failed.
    ///
    /// # Errors
    /// It failed. The error reports an unreachable server if that was the cause, and else `otherwise`.
    pub fn or_else(self, otherwise: impl FnOnce() -> String) -> Result<()> {
        match self {
            Self { passed: true, .. } => Ok(()),
            Self {
                unreachable: Some(why),
                ..
            } => bail!(why),
            Self { .. } => bail!(otherwise()),
        }
    }
}

/// Runs `cmd` and shows the elapsed time instead of its output.
///
/// # Errors
/// It can't be started, or fails: the error carries the end of what it printed, and names a server
/// that could not be reached.
pub fn run_quietly(what: &str, cmd: Cmd<'_>) -> Result<()> {
    let line = cmd.to_string();
    // rustup would end with a backtrace instead of its reason.
    let mut running = WatchedProcess::start(cmd.env("RUST_BACKTRACE", "0"), Stdio::null())?;
    let mut progress = CommandProgress::new(what);
    let mut transcript = Vec::new();
    loop {
        match running.next() {
            NextOutput::Bytes(bytes) => transcript.extend_from_slice(&bytes),
            NextOutput::Nothing => progress.tick(&last_line(&transcript)),
            NextOutput::End => break,
        }
    }
    drop(progress);
    let status = running.wait()?;
    if status.success() {
        return Ok(());
    }
    let transcript = String::from_utf8_lossy(&transcript);
    if let Some(sign) = network::sign(&transcript) {
        bail!(network::unreachable(&line, sign));
    }
    let lines: Vec<_> = transcript
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let end = lines[lines.len().saturating_sub(12)..].join("\n  ");
    bail!("`{line}` failed ({status}):\n  {end}")
}

/// Returns an error in one line: the command, and the end of its output, which usually has the reason.
pub fn in_short(why: &Error) -> String {
    let text = format!("{why:#}");
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    match lines.next_back() {
        Some(last) => format!("{first} {last}"),
        None => first.to_owned(),
    }
}

/// Returns the last line of a command's output; progress bars overwrite their line.
fn last_line(transcript: &[u8]) -> String {
    let tail = &transcript[transcript.len().saturating_sub(500)..];
    let tail = String::from_utf8_lossy(tail);
    let mut lines = tail.split(['\n', '\r']).rev();
    let line = lines.find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().to_owned()
}

/// Runs `cmd`, passing its output on as it comes, and hands each whole line to `on_line`. While it
/// prints nothing, `what` is shown with the time that has passed.
///
/// # Errors
/// It can't be started.
pub fn watch(what: &str, cmd: Cmd<'_>, on_line: impl FnMut(&str)) -> Result<RunOutcome> {
    watch_into(&mut io::stdout(), what, cmd, on_line)
}

fn watch_into(
    to: &mut impl Write,
    what: &str,
    cmd: Cmd<'_>,
    mut on_line: impl FnMut(&str),
) -> Result<RunOutcome> {
    let command = cmd.to_string();
    writeln!(to, "\n$ {command}").context("writing the output")?;
    let mut running = WatchedProcess::start(cmd, Stdio::inherit())?;
    let mut progress = CommandProgress::new(what);
    let mut lines = LineSplitter::default();
    let (mut sign, mut last) = (None, String::new());
    loop {
        match running.next() {
            NextOutput::Bytes(bytes) => {
                progress.note_output();
                // At once, so that a test's name shows while it runs.
                to.write_all(&bytes)
                    .and_then(|()| to.flush())
                    .context("writing the output")?;
                lines.take(&bytes, |line| {
                    if sign.is_none() && network::is_sign(line) {
                        sign = Some(line.trim().to_owned());
                    }
                    line.clone_into(&mut last);
                    on_line(line);
                });
            }
            // In the middle of a line the output itself shows what is running.
            NextOutput::Nothing if lines.rest.is_empty() => progress.tick(&last),
            NextOutput::Nothing => {}
            NextOutput::End => break,
        }
    }
    drop(progress);
    let passed = running.wait()?.success();
    let sign = sign.filter(|_| !passed);
    Ok(RunOutcome {
        passed,
        unreachable: sign.map(|sign| network::unreachable(&command, &sign)),
    })
}

/// A process whose output is read as it comes.
struct WatchedProcess {
    line: String,
    child: Child,
    output: Receiver<Vec<u8>>,
}

/// The result of waiting for output.
enum NextOutput {
    /// It printed this.
    Bytes(Vec<u8>),
    /// It printed nothing for [`progress::TICK`].
    Nothing,
    /// All of its output was read.
    End,
}

impl WatchedProcess {
    fn start(cmd: Cmd<'_>, stdin: Stdio) -> Result<Self> {
        let line = cmd.to_string();
        // One pipe for both streams: cargo names a suite on stderr, libtest reports on stdout.
        let (mut reader, writer) = io::pipe().context("making a pipe")?;
        let child = {
            let mut command = Command::from(cmd);
            let program = command.get_program().to_string_lossy().into_owned();
            command
                .stdin(stdin)
                .stdout(writer.try_clone().context("making a pipe")?)
                .stderr(writer);
            match command.spawn() {
                Ok(child) => child,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    bail!("`{line}`: there is no program `{program}` on this system; install it")
                }
                Err(error) => return Err(error).with_context(|| format!("starting `{line}`")),
            }
            // `command` holds the writing end and must be dropped, because the pipe would never end.
        };
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut chunk) {
                if sender.send(chunk[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            line,
            child,
            output,
        })
    }

    fn next(&mut self) -> NextOutput {
        match self.output.recv_timeout(progress::TICK) {
            Ok(bytes) => NextOutput::Bytes(bytes),
            Err(RecvTimeoutError::Timeout) => NextOutput::Nothing,
            Err(RecvTimeoutError::Disconnected) => NextOutput::End,
        }
    }

    fn wait(mut self) -> Result<ExitStatus> {
        let waiting = || format!("waiting for `{}`", self.line);
        self.child.wait().with_context(waiting)
    }
}

/// Splits chunks of output into lines.
#[derive(Default)]
struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    fn take(&mut self, bytes: &[u8], mut on_line: impl FnMut(&str)) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            on_line(String::from_utf8_lossy(&self.rest[..end]).trim_end());
            self.rest.drain(..=end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::at_root;

    #[test]
    fn lines_are_whole_whatever_the_chunks() {
        let long = "x".repeat(5000);
        let text = format!("one\n\ntwo\r\n{long}\ntail");
        for size in [1, 3, 4096, 10_000] {
            let mut lines = LineSplitter::default();
            let mut seen = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.take(chunk, |line| seen.push(line.to_owned()));
            }
            assert_eq!(seen, ["one", "", "two", &long], "{size}");
            assert_eq!(lines.rest, b"tail", "{size}");
        }
    }

    #[test]
    fn watch_sees_both_streams_and_the_status() {
        let sh = at_root().unwrap();
        let table = [
            ("a failure", "echo out; echo err >&2; exit 3", false, None),
            ("a success", "echo out; echo err >&2", true, None),
            (
                "no network",
                "echo out; echo err >&2; echo Could not resolve host: x; exit 1",
                false,
                Some("could not reach a server: Could not resolve host: x"),
            ),
            (
                "a warning of the network alone",
                "echo out; echo err >&2; echo Could not resolve host: x",
                true,
                None,
            ),
        ];
        for (name, script, passed, unreachable) in table {
            let (mut shown, mut lines) = (Vec::new(), Vec::new());
            let cmd = sh.cmd("sh").args(["-c", script]);
            let outcome = watch_into(&mut shown, "a test", cmd, |line| {
                lines.push(line.to_owned())
            })
            .unwrap();
            assert_eq!(outcome.passed, passed, "{name}");
            assert_eq!(outcome.unreachable.as_deref(), unreachable, "{name}");
            assert_eq!(lines[..2], ["out", "err"], "{name}");
            let shown = String::from_utf8(shown).unwrap();
            assert!(shown.contains("\nout\nerr\n"), "{name}: {shown}");
        }
    }

    #[test]
    fn a_quiet_failure_shows_what_was_printed() {
        let sh = at_root().unwrap();
        let table = [
            ("a reason", "echo why; exit 1", "why"),
            (
                "no network",
                "echo Temporary failure resolving x; echo more; exit 1",
                "could not reach a server: Temporary failure resolving x",
            ),
        ];
        for (name, script, expected) in table {
            let error = run_quietly("a test", sh.cmd("sh").args(["-c", script])).unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
        let error = run_quietly("a test", sh.cmd("no-such-program").arg("x")).unwrap_err();
        let expected = "`no-such-program x`: there is no program `no-such-program` on this system";
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn the_last_lines_are_shown() {
        let table = [
            ("a line", "one\ntwo\n", "two"),
            ("a progress bar", "10%\r20%\r", "20%"),
            ("nothing", "\n", ""),
        ];
        for (name, transcript, expected) in table {
            assert_eq!(last_line(transcript.as_bytes()), expected, "{name}");
        }
    }
}
