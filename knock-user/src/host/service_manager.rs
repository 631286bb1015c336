//! Reports the state to a service manager, and writes messages to standard error in the form that
//! the journal or a terminal expects.

use std::{
    env,
    ffi::OsStr,
    fmt,
    io::{self, ErrorKind, Write},
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use nix::sys::stat::fstat;
use sd_notify::NotifyState;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    registry::LookupSpan,
};

use crate::host::os_error;

/// Reports that this process protects, also at the end of a reload.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Reports the start of a reload; [`ready`] reports its end, whether or not anything changed.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("asking for the time: {}", os_error::plain(&error)),
    }
}

/// Reports that this process is about to end; `status` is shown until then.
pub fn stopping(status: &str) {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status(&one_line(status)),
    ]);
}

/// Sets the text that `systemctl status` shows.
pub fn status(text: &str) {
    notify(&[NotifyState::Status(&one_line(text))]);
}

/// Returns how often [`ping`] has to be called, if a watchdog is set: half its timeout.
pub fn ping_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|missed_after| missed_after / 2)
        .filter(|interval| !interval.is_zero())
}

/// Reports to the watchdog that this process is alive.
pub fn ping() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = send(states) {
        tracing::warn!(
            "notifying the service manager: {}; NOTIFY_SOCKET names the socket that it listens on",
            os_error::plain(&error)
        );
    }
}

/// Sends a notification, or does nothing without `NOTIFY_SOCKET`. Unlike [`sd_notify::notify`], it
/// does not block if the manager does not read.
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match socket.send_to_addr(message.as_bytes(), &address) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(io::Error::other("it does not read its messages"))
        }
        sent => sent.map(drop),
    }
}

/// Joins lines, since line ends separate messages to the service manager.
fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
}

/// Returns whether a stream goes straight to the journal.
pub fn is_journal(stream: impl AsFd) -> bool {
    let Some(journal) = env::var("JOURNAL_STREAM").ok() else {
        return false;
    };
    // Child processes inherit the variable even if their streams were redirected.
    fstat(stream).is_ok_and(|stream| is_same(&journal, stream.st_dev, stream.st_ino))
}

/// Compares `DEVICE:INODE` with the numbers of a stream.
fn is_same(journal: &str, device: u64, inode: u64) -> bool {
    let numbers = journal
        .split_once(':')
        .and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    numbers == Some((device, inode))
}

/// Standard error, whose lines begin with their priority if they go to the journal
/// (`sd-daemon(3)`).
#[derive(Clone, Copy, Debug)]
pub struct Stderr {
    is_journal: bool,
}

impl Stderr {
    /// Inspects standard error.
    pub fn find() -> Self {
        Self {
            is_journal: is_journal(io::stderr()),
        }
    }

    /// Writes one or more lines.
    pub fn print(self, level: Level, text: &str) {
        let mut lines = self.lines(level);
        // A failure to write to standard error can't be reported.
        let _gone = lines.write_all(format!("{text}\n").as_bytes());
    }

    fn lines(self, level: Level) -> PrefixedLines<io::Stderr> {
        PrefixedLines {
            prefix: if self.is_journal { prefix(level) } else { "" },
            out: io::stderr(),
        }
    }
}

/// Returns a message with the name of this program: `knock-user: warning: …`.
pub fn named(level: Level, text: &str) -> String {
    format!("knock-user: {}{text}", word(level))
}

/// Returns the word for the level. An error gets none, since a program that failed is expected to
/// print one.
const fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR | Level::INFO => "",
        Level::WARN => "warning: ",
        Level::DEBUG | Level::TRACE => "debug: ",
    }
}

/// Formats events as [`named`] lines; the journal, which adds name and priority, gets the text
/// alone.
impl<S, N> FormatEvent<S, N> for Stderr
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if !self.is_journal {
            writer.write_str(&named(*event.metadata().level(), ""))?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = PrefixedLines<io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        self.lines(Level::INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        self.lines(*meta.level())
    }
}

/// Writes each line with a prefix, and whole lines at once.
#[derive(Debug)]
pub struct PrefixedLines<W> {
    prefix: &'static str,
    out: W,
}

impl<W: Write> Write for PrefixedLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut prefixed = Vec::with_capacity(bytes.len() + self.prefix.len());
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            prefixed.extend_from_slice(self.prefix.as_bytes());
            prefixed.extend_from_slice(line);
        }
        // One write keeps lines of several programs whole. A closed stream is not an error: the work
        // continues.
        let _gone = self.out.write_all(&prefixed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns the prefix with the priority of syslog.
const fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use nix::sys::stat::stat;

    use super::*;

    #[test]
    fn the_journal_is_known_by_its_numbers() {
        for (name, text, expected) in [
            ("this one", "8:1234", true),
            ("another inode", "8:1235", false),
            ("another device", "9:1234", false),
            ("no numbers", "x:y", false),
            ("no colon", "81234", false),
            ("empty", "", false),
            ("more", "8:1234:5", false),
        ] {
            assert_eq!(is_same(text, 8, 1234), expected, "{name}");
        }
    }

    #[test]
    fn a_stream_has_the_numbers_of_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let numbers = stat(file.path()).unwrap();
        let opened = fstat(file.as_file()).unwrap();
        let text = format!("{}:{}", numbers.st_dev, numbers.st_ino);
        assert!(is_same(&text, opened.st_dev, opened.st_ino));
    }

    #[test]
    fn messages_have_one_form() {
        for (level, expected) in [
            (Level::ERROR, "knock-user: it failed"),
            (Level::WARN, "knock-user: warning: it failed"),
            (Level::INFO, "knock-user: it failed"),
            (Level::DEBUG, "knock-user: debug: it failed"),
            (Level::TRACE, "knock-user: debug: it failed"),
        ] {
            assert_eq!(named(level, "it failed"), expected);
        }
    }

    /// A writer whose reader is gone.
    struct ClosedWriter;

    impl Write for ClosedWriter {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_stream_is_not_an_error() {
        let mut lines = PrefixedLines {
            prefix: "",
            out: ClosedWriter,
        };
        assert_eq!(lines.write(b"one\n").unwrap(), 4);
    }

    #[test]
    fn every_line_has_its_priority() {
        for (level, text, expected) in [
            (Level::WARN, "one\n", "<4>one\n"),
            (Level::ERROR, "one\ntwo\n", "<3>one\n<3>two\n"),
            (Level::TRACE, "one", "<7>one"),
            (Level::INFO, "", ""),
        ] {
            let mut written = Vec::new();
            let mut lines = PrefixedLines {
                prefix: prefix(level),
                out: &mut written,
            };
            lines.write_all(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), expected, "{text:?}");
        }
    }

    /// The environment belongs to the whole process, so a second process sends the messages.
    #[test]
    fn the_service_manager_receives_each_state() {
        if env::var_os("NOTIFY_SOCKET").is_some() {
            ready("protecting eth0\nand eth1");
            status("3 grants");
            reloading();
            ping();
            stopping("detaching");
            assert_eq!(ping_interval(), Some(Duration::from_secs(15)));
            return;
        }
        assert_eq!(ping_interval(), None);
        ready("without a manager");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let speaker = std::process::Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "host::service_manager::tests::the_service_manager_receives_each_state",
            ])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "30000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(speaker.status.success(), "{speaker:?}");
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        let mut received = Vec::new();
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            received.push(text.trim_end().replace('\n', " "));
        }
        assert_eq!(received.len(), 5, "{received:?}");
        assert_eq!(received[0], "READY=1 STATUS=protecting eth0; and eth1");
        assert_eq!(received[1], "STATUS=3 grants");
        assert!(
            received[2].starts_with("RELOADING=1 MONOTONIC_USEC="),
            "{received:?}"
        );
        assert_eq!(received[3], "WATCHDOG=1");
        assert_eq!(received[4], "STOPPING=1 STATUS=detaching");
    }
}
