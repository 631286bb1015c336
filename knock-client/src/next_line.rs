//! Asking a host which line of a one-time file is next.
//!
//! The client sends the name of a door and a line end; the server answers with the number of a line
//! and a line end, or closes the connection. Neither side is authenticated: an impostor of the
//! server can make a client skip lines.

use crate::destination::{Destination, Family, ResolveError, Resolved};
use crate::refused;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A number of 20 digits and a line end.
const ANSWER_MAX: u64 = 21;
/// The longest name of a door.
const NAME_MAX: usize = 64;
/// The shortest time limit that the system accepts.
const MOMENT: Duration = Duration::from_millis(1);

/// The address of a next-line server: `[HOST:]PORT[/DOOR]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextLineAddress {
    /// The host, if it differs from the one to knock on.
    pub host: Option<String>,
    /// The TCP port.
    pub port: u16,
    /// The door, if the host has more than one with a one-time file.
    pub door: Option<String>,
}

/// Why the next line is unknown.
#[derive(Debug, thiserror::Error)]
pub enum NextLineError {
    /// The host has no usable address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The server could not be asked.
    #[error(
        "cannot ask {next_line} on {host} for the next line: {}; check --next-line, or leave it out to \
         use the next unused line of the file",
        refused::plain(cause)
    )]
    NotAsked {
        /// The port and door.
        next_line: NextLineAddress,
        /// The host.
        host: String,
        /// The system's error.
        cause: io::Error,
    },
    /// The server named no line.
    #[error(
        "{next_line} on {host} names no next line: the door may have another name (--next-line \
         PORT/DOOR), or its file is used up"
    )]
    NoAnswer {
        /// The port and door.
        next_line: NextLineAddress,
        /// The host.
        host: String,
    },
}

impl NextLineAddress {
    /// Returns the next line, from 1. `host` is the one to knock on.
    ///
    /// # Errors
    ///
    /// No valid answer arrived within `limit`.
    pub fn ask(
        &self,
        host: &str,
        family: Option<Family>,
        limit: Duration,
    ) -> Result<usize, NextLineError> {
        let end = Instant::now() + limit;
        let host = self.host.as_deref().unwrap_or(host);
        let Resolved { first, others } = Destination::resolve(host, family)?;
        let mut asked = self.ask_at(&first, end);
        for other in others {
            if asked.is_err() {
                asked = self.ask_at(&other, end);
            }
        }
        let answer = asked.map_err(|cause| NextLineError::NotAsked {
            next_line: self.clone(),
            host: host.to_owned(),
            cause,
        })?;
        line_in(&answer).ok_or_else(|| NextLineError::NoAnswer {
            next_line: self.clone(),
            host: host.to_owned(),
        })
    }

    fn ask_at(&self, destination: &Destination, end: Instant) -> io::Result<Vec<u8>> {
        let left = || end.saturating_duration_since(Instant::now()).max(MOMENT);
        let mut stream = TcpStream::connect_timeout(&destination.at(self.port), left())?;
        stream.set_write_timeout(Some(left()))?;
        let door = self.door.as_deref().unwrap_or_default();
        stream.write_all(format!("{door}\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut rest = stream.take(ANSWER_MAX);
        while !answer.ends_with(b"\n") {
            rest.get_ref().set_read_timeout(Some(left()))?;
            let mut byte = [0];
            match rest.read(&mut byte) {
                Ok(0) => break,
                Ok(_) if Instant::now() < end => answer.extend(byte),
                Ok(_) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A host that closes before it has read everything sends a reset.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error),
            }
        }
        Ok(answer)
    }
}

/// Returns the line that an answer names, from 1: digits and a line end, and nothing else.
pub fn line_in(answer: &[u8]) -> Option<usize> {
    let digits = str::from_utf8(answer).ok()?.strip_suffix('\n')?;
    // Only digits: usize would also read a sign.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let line = digits.parse().ok()?;
    (is_number && line > 0).then_some(line)
}

impl FromStr for NextLineAddress {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| {
            format!("'{word}' {what}: write PORT, HOST:PORT or HOST:PORT/DOOR, such as 7001/ssh")
        };
        let (place, door) = match word.split_once('/') {
            Some((_, "")) => return Err(wrong("names no door")),
            Some((place, door)) => (place, Some(door.to_owned())),
            None => (word, None),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if door
            .as_ref()
            .is_some_and(|door| door.len() > NAME_MAX || !door.chars().all(fits))
        {
            return Err(wrong("names no door"));
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (Some(host), port),
            None => (None, place),
        };
        let host = match host {
            None | Some("") => None,
            Some(host) => match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
                Some(Some(inner)) if !inner.is_empty() => Some(inner.to_owned()),
                Some(_) => return Err(wrong("has half an address")),
                None if host.contains(':') => {
                    return Err(wrong(
                        "has an address that needs brackets, as in [::1]:7001",
                    ));
                }
                None => Some(host.to_owned()),
            },
        };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 => Ok(Self { host, port, door }),
            _ => Err(wrong("has no port")),
        }
    }
}

impl fmt::Display for NextLineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp/{}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;
    use std::thread;

    fn next_line(host: Option<&str>, port: u16, door: Option<&str>) -> NextLineAddress {
        NextLineAddress {
            host: host.map(str::to_owned),
            port,
            door: door.map(str::to_owned),
        }
    }

    #[test]
    fn addresses_of_the_server_are_read() {
        let rows = [
            ("7001", next_line(None, 7001, None)),
            (":7001", next_line(None, 7001, None)),
            ("7001/ssh", next_line(None, 7001, Some("ssh"))),
            (
                "example.org:7001",
                next_line(Some("example.org"), 7001, None),
            ),
            (
                "192.0.2.1:7001/a.b-c_d",
                next_line(Some("192.0.2.1"), 7001, Some("a.b-c_d")),
            ),
            ("[::1]:7001/ssh", next_line(Some("::1"), 7001, Some("ssh"))),
            (
                "[fe80::1%eth0]:7001",
                next_line(Some("fe80::1%eth0"), 7001, None),
            ),
        ];
        for (word, expected) in rows {
            assert_eq!(word.parse(), Ok(expected), "{word}");
        }
        let wrong = [
            ("", "has no port"),
            ("ssh", "has no port"),
            ("0", "has no port"),
            ("70000", "has no port"),
            ("+7001", "has no port"),
            ("host:", "has no port"),
            ("7001/", "names no door"),
            ("7001/a b", "names no door"),
            ("7001/a\n", "names no door"),
            ("::1:7001", "needs brackets"),
            ("[::1:7001", "half an address"),
            ("[]:7001", "half an address"),
        ];
        for (word, message) in wrong {
            let error = word.parse::<NextLineAddress>().expect_err(word);
            assert!(error.contains(message), "{word}: {error}");
        }
    }

    #[test]
    fn only_a_line_number_is_an_answer() {
        let rows: [(&[u8], Option<usize>); 9] = [
            (b"1\n", Some(1)),
            (b"1000\n", Some(1000)),
            (b"", None),
            (b"1", None),
            (b"0\n", None),
            (b"+1\n", None),
            (b"-1\n", None),
            (b"one\n", None),
            (b"99999999999999999999\n", None),
        ];
        for (answer, line) in rows {
            assert_eq!(line_in(answer), line, "{answer:?}");
        }
    }

    /// Asks a host that always answers with these bytes; returns what the client made of it and what it asked.
    fn asked(answer: &'static [u8]) -> (Result<usize, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let host = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut question = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a reader"));
            reader.read_line(&mut question).expect("a question");
            // The other side may have received enough.
            let _gone = stream.write_all(answer);
            question
        });
        let next_line = next_line(None, port, Some("ssh"));
        let message = next_line.ask("127.0.0.1", None, Duration::from_secs(10));
        let message = message.map_err(|error| error.to_string());
        (message, host.join().expect("no panic"))
    }

    #[test]
    fn a_host_is_asked_for_its_next_line() {
        assert_eq!(asked(b"12\n"), (Ok(12), "ssh\n".to_owned()));
        for answer in [&b""[..], b"no\n", b"12", &[b'1'; 4096]] {
            let (message, _) = asked(answer);
            let error = message.expect_err("no number");
            assert!(error.contains("names no next line"), "{error}");
        }
    }

    #[test]
    fn a_host_that_does_not_answer_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let slow = next_line(None, port, None).ask("127.0.0.1", None, Duration::from_millis(50));
        let error = slow.expect_err("nobody accepts").to_string();
        assert!(error.contains("cannot ask"), "{error}");
        drop(listener);
        let gone = next_line(None, port, None).ask("127.0.0.1", None, Duration::from_secs(10));
        let error = gone.expect_err("nobody listens").to_string();
        assert!(error.contains("cannot ask"), "{error}");
    }
}
