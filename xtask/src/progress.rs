//! Shows what a long command is doing, and for how long.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// How often the line on a terminal changes.
pub const TICK: Duration = Duration::from_secs(1);

/// How often a line is written where there is no terminal.
const EACH: Duration = Duration::from_secs(15);

/// The most characters of the command's last output that are shown.
const DETAIL: usize = 60;

/// Reports on one command. On a terminal a line shows the elapsed time and changes in place; elsewhere
/// a line is written after each 15 s without other output. Both go to standard error.
#[derive(Debug)]
pub struct CommandProgress {
    what: String,
    began: Instant,
    next: Duration,
    terminal: bool,
    shown: bool,
}

impl CommandProgress {
    /// Starts the clock; `what` describes the command in a few words.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            began: Instant::now(),
            next: EACH,
            terminal: io::stderr().is_terminal(),
            shown: false,
        }
    }

    /// Updates the line after some time; `detail` is the last output of the command.
    pub fn tick(&mut self, detail: &str) {
        let passed = self.began.elapsed();
        if self.terminal {
            let line = line(&self.what, passed, detail);
            // A progress line that can't be written is not a reason to stop.
            let _ignored = write!(io::stderr(), "\r\x1b[K{line}");
            let _ignored = io::stderr().flush();
            self.shown = true;
        } else if passed >= self.next {
            self.next = passed + EACH;
            eprintln!("{}", line(&self.what, passed, detail));
        }
    }

    /// Notes that the command printed a line that is shown, which proves that it continues.
    pub fn note_output(&mut self) {
        self.clear();
        self.next = self.began.elapsed() + EACH;
    }

    /// Removes the line from the terminal, so that other output can follow.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ignored = write!(io::stderr(), "\r\x1b[K");
            let _ignored = io::stderr().flush();
        }
    }

    /// Returns the elapsed time.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for CommandProgress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(what: &str, passed: Duration, detail: &str) -> String {
    let detail = without_colour(detail);
    let detail: String = detail.trim().chars().take(DETAIL).collect();
    let time = time(passed);
    if detail.is_empty() {
        format!("… {what}: {time}")
    } else {
        format!("… {what}: {time} ({detail})")
    }
}

/// Returns a line without the sequences that colour it.
pub fn without_colour(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            // "ESC [ numbers letter"
            let _sequence = chars.find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Returns a duration as in `45 s` or `3 min 20 s`.
pub fn time(passed: Duration) -> String {
    let seconds = passed.as_secs();
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes} min {} s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_time_and_a_short_detail() {
        let long = "x".repeat(DETAIL + 1);
        let table = [
            ("no detail", 5, " ", "… building: 5 s".to_owned()),
            (
                "with detail",
                200,
                " Compiling libc\n",
                "… building: 3 min 20 s (Compiling libc)".to_owned(),
            ),
            (
                "long",
                0,
                &long,
                format!("… building: 0 s ({})", &long[..DETAIL]),
            ),
        ];
        for (name, seconds, detail, expected) in table {
            let line = line("building", Duration::from_secs(seconds), detail);
            assert_eq!(line, expected, "{name}");
        }
    }
}
