//! Relays data between standard input and output and a connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

/// How many bytes are read at once.
const CHUNK: usize = 64 * 1024;

/// Relays `input` to the connection, and the connection to `output`.
///
/// Each direction ends separately: the end of `input` shuts down writing to the host, and the end of
/// the host's data calls `close_output`. Returns when both have ended.
///
/// # Errors
///
/// The connection broke, or `output` can't be written.
pub fn pass(
    stream: &TcpStream,
    mut input: impl Read + Send + 'static,
    mut output: impl Write,
    close_output: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let mut to_host = stream.try_clone()?;
    let sender = thread::spawn(move || -> io::Result<()> {
        copy(&mut input, &mut to_host)?;
        match to_host.shutdown(Shutdown::Write) {
            // The host has closed the connection already.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        }
    });
    copy(&mut &*stream, &mut output)?;
    close_output()?;
    match sender.join() {
        // A host that has closed the connection does not receive the rest of the input.
        Ok(Err(error)) if is_hung_up(&error) => Ok(()),
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn is_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

/// Copies without buffering: the other side may be waiting for half a line.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(chunk.get(..length).unwrap_or_default())?;
        to.flush()?;
    }
}
