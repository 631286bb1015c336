//! Writes to standard output without making the daemon wait.
//!
//! A stopped terminal (Ctrl-S) or a pipe without a reader blocks the writer, but signals, deadlines
//! and commands have to continue. So a thread writes, and lines that exceed its queue are left out
//! and counted.

use std::{
    io::{self, ErrorKind, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel},
    thread,
    time::Duration,
};

use crate::host::os_error;

/// The length of the queue, in lines.
const WAITING_MAX: usize = 4_096;
/// The time limit for writing the last lines.
const FAREWELL: Duration = Duration::from_secs(1);

/// Accepts lines and passes them to the writing thread.
#[derive(Debug)]
pub struct Output {
    line: Vec<u8>,
    /// `None` only during drop.
    lines: Option<SyncSender<Vec<u8>>>,
    /// Closed when everything is written.
    written: Receiver<()>,
    left_out: u64,
}

impl Output {
    /// Starts a thread that writes to `to`.
    pub fn new(mut to: impl Write + Send + 'static) -> Self {
        let (lines, waiting) = sync_channel::<Vec<u8>>(WAITING_MAX);
        let (done, written) = channel();
        thread::spawn(move || {
            let _signals_by_closing = done;
            let mut unwritten = 0_u64;
            for line in waiting {
                let written = to.write_all(&line).and_then(|()| to.flush());
                match written {
                    Ok(()) if unwritten > 0 => {
                        let lines = std::mem::take(&mut unwritten);
                        tracing::warn!(
                            "standard output can be written again: {lines} lines were left out"
                        );
                    }
                    Ok(()) => {}
                    Err(error) if may_pass(&error) => {
                        if unwritten == 0 {
                            tracing::warn!(
                                "standard output can't be written for now: {}",
                                os_error::reason(&error, "standard output")
                            );
                        }
                        unwritten = unwritten.saturating_add(1);
                    }
                    // The end of this thread shows the sender that the reader is closed.
                    Err(_) => return,
                }
            }
        });
        Self {
            line: Vec::new(),
            lines: Some(lines),
            written,
            left_out: 0,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        match self.lines.as_ref().map(|lines| lines.try_send(line)) {
            Some(Ok(())) => {
                if self.left_out > 0 {
                    let left_out = std::mem::take(&mut self.left_out);
                    tracing::warn!("standard output was not read: {left_out} lines were left out");
                }
                Ok(())
            }
            Some(Err(TrySendError::Full(_))) => {
                self.left_out = self.left_out.saturating_add(1);
                Ok(())
            }
            Some(Err(TrySendError::Disconnected(_))) | None => Err(ErrorKind::BrokenPipe.into()),
        }
    }
}

/// A writer whose reader may close early, as `head` does; later output is discarded without an
/// error.
#[derive(Debug)]
pub struct Unread<W>(
    /// The underlying writer.
    pub W,
);

impl<W: Write> Write for Unread<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

/// Returns whether a retry may succeed, as on a full disk.
fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Err(RecvTimeoutError::Timeout) = self.written.recv_timeout(FAREWELL) {
            tracing::warn!("standard output is not read: the last lines were left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Mutex,
            mpsc::{Receiver, Sender, channel},
        },
        time::Instant,
    };

    use super::*;

    /// Writes one line for each permission.
    struct Held {
        /// Receives a message for each line, before the wait for a permission.
        begins: Option<Sender<()>>,
        permissions: Receiver<()>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(begins) = &self.begins {
                begins.send(()).map_err(io::Error::other)?;
            }
            self.permissions.recv().map_err(io::Error::other)?;
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order() {
        let text = Arc::new(Mutex::new(Vec::new()));
        let (allow, permissions) = channel();
        let mut output = Output::new(Held {
            begins: None,
            permissions,
            text: Arc::clone(&text),
        });
        for part in ["one ", "line\n", "another\n"] {
            output.write_all(part.as_bytes()).unwrap();
        }
        for _ in 0..2 {
            allow.send(()).unwrap();
        }
        drop(output);
        assert_eq!(&*text.lock().unwrap(), b"one line\nanother\n");
    }

    #[test]
    fn a_reader_that_does_not_read_does_not_block_the_writer() {
        let (_allow, permissions) = channel();
        let (begins, begun) = channel();
        let mut output = Output::new(Held {
            begins: Some(begins),
            permissions,
            text: Arc::default(),
        });
        output.write_all(b"line\n").unwrap();
        // The writer's thread holds one line and takes no further ones.
        begun.recv().unwrap();
        for _ in 0..WAITING_MAX + 100 {
            output.write_all(b"line\n").unwrap();
        }
        assert_eq!(output.left_out, 100);
        // The permission never arrives, so this ends only if no call waits for it.
        drop(output);
    }

    /// A disk that is full for the given number of lines.
    struct Full(u32, Arc<Mutex<Vec<u8>>>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 > 0 {
                self.0 -= 1;
                return Err(ErrorKind::StorageFull.into());
            }
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writing_is_retried_on_a_full_disk() {
        let text = Arc::new(Mutex::new(Vec::new()));
        let mut output = Output::new(Full(2, Arc::clone(&text)));
        for line in ["one\n", "two\n", "three\n"] {
            output.write_all(line.as_bytes()).unwrap();
        }
        drop(output);
        assert_eq!(&*text.lock().unwrap(), b"three\n");
    }

    #[test]
    fn a_closed_reader_is_an_error() {
        let (allow, permissions) = channel();
        drop(allow);
        let mut output = Output::new(Held {
            begins: None,
            permissions,
            text: Arc::default(),
        });
        let deadline = Instant::now() + 10 * FAREWELL;
        while output.write_all(b"line\n").is_ok() {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
    }
}
