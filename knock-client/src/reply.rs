//! The reply of a door, which names the opened port.

use crate::connect::Knocked;
use crate::destination::Destination;
use knock_sequence::{Knock, KnockSpec, Protocol, duration};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any port number.
const LONGEST: usize = 16;

/// Where to connect to after the last knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectTo {
    /// To this TCP port.
    Port(u16),
    /// To the TCP port that the host's reply names.
    Reply,
}

/// Where the reply to the last knock arrives.
#[derive(Debug)]
pub struct ReplyListener {
    socket: UdpSocket,
    from: SocketAddr,
}

/// No reply arrived in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "no reply from {destination} to {knock} within {limit:?}: the knocks are wrong, the port is open \
     already, the door has no reply = true, or a firewall drops UDP; name the port with \
     --then-connect PORT"
)]
pub struct NoReply {
    /// The host.
    pub destination: Destination,
    /// The last knock, to which the host replies.
    pub knock: Knock,
    /// The time that was allowed.
    pub limit: Duration,
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortReply {
    /// The index of the host among those that were knocked on.
    pub place: usize,
    /// The port that is open.
    pub port: u16,
    /// The time since the last knock.
    pub after: Duration,
}

impl ReplyListener {
    /// Listens on a socket for datagrams from the knocked port alone.
    pub(crate) fn new(socket: UdpSocket, from: SocketAddr) -> Self {
        Self { socket, from }
    }

    /// Waits for the port until `limit` has passed since `last_knock`.
    fn receive(&self, last_knock: Instant, limit: Duration) -> Option<u16> {
        let mut buffer = [0; LONGEST];
        loop {
            let left = limit.saturating_sub(last_knock.elapsed());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return None;
            }
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) if is_same(from, self.from) => {
                    if let Some(port) = port_in(buffer.get(..length).unwrap_or_default()) {
                        return Some(port);
                    }
                }
                // From another address, or an ICMP error for another packet.
                Ok(_) => {}
                Err(error) if is_passing(error.kind()) => {}
                Err(_) => return None,
            }
        }
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Interrupted
            | ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
    )
}

/// Compares without the scope and flow label of IPv6, which are local to this machine.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() == other.port()
}

/// Returns the port that a datagram names: digits and nothing else.
pub fn port_in(datagram: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(datagram).ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| text.parse().ok())??;
    (port != 0).then_some(port)
}

/// Waits for the first reply of any host.
///
/// # Errors
///
/// No host replied in time.
pub fn wait_for_reply(
    knocked: &[Knocked],
    listeners: Vec<ReplyListener>,
    last: Knock,
    limit: Duration,
) -> Option<Result<PortReply, NoReply>> {
    let (sender, replies) = mpsc::channel();
    for (place, (knocked, listener)) in knocked.iter().zip(listeners).enumerate() {
        let sender = sender.clone();
        let last_knock = knocked.last_knock;
        thread::spawn(move || {
            if let Some(port) = listener.receive(last_knock, limit) {
                let after = last_knock.elapsed();
                // The receiver is gone after the first reply.
                let _late = sender.send(PortReply { place, port, after });
            }
        });
    }
    drop(sender);
    if let Ok(reply) = replies.recv() {
        return Some(Ok(reply));
    }
    let destination = knocked.first()?.destination;
    Some(Err(NoReply {
        destination,
        knock: last,
        limit,
    }))
}

/// Reads a TCP port, or the word for the port that the host replies.
pub(crate) fn parse_connect_to(word: &str) -> Result<ConnectTo, String> {
    match word {
        "reply" => Ok(ConnectTo::Reply),
        _ => parse_tcp_port(word).map(ConnectTo::Port),
    }
}

/// Reads `22` and `tcp/22`.
pub(crate) fn parse_tcp_port(word: &str) -> Result<u16, String> {
    match word
        .parse::<KnockSpec>()
        .map(|word| word.knock(Protocol::Tcp))
    {
        Ok(Knock {
            protocol: Protocol::Tcp,
            port,
        }) => Ok(port),
        Ok(Knock {
            protocol: Protocol::Udp,
            ..
        }) => Err(format!(
            "'{word}' cannot be connected to: write a TCP port, such as 22 or tcp/22"
        )),
        Err(_) => Err(format!(
            "'{word}' is not a TCP port from 1 to 65535, such as 22 or tcp/22"
        )),
    }
}

/// Reads a time limit of an attempt.
pub(crate) fn parse_timeout(word: &str) -> Result<Duration, String> {
    match duration::parse(word) {
        Ok(Duration::ZERO) => Err(format!(
            "'{word}' leaves no time to connect: write 1ms or more"
        )),
        Ok(limit) => Ok(limit),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_a_port() {
        for (name, datagram, port) in [
            ("ssh", &b"22"[..], Some(22)),
            ("the highest", b"65535", Some(65_535)),
            ("leading zeros", b"00022", Some(22)),
            ("too high", b"65536", None),
            ("none", b"0", None),
            ("empty", b"", None),
            ("a sign", b"+22", None),
            ("a line", b"22\n", None),
            ("no text", b"\xff\xff", None),
            ("words", b"go away", None),
        ] {
            assert_eq!(port_in(datagram), port, "{name}");
        }
    }

    #[test]
    fn only_datagrams_from_the_knocked_port_count() {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (own, host, other) = (bind(), bind(), bind());
        let to = own.local_addr().unwrap();
        other.send_to(b"23", to).unwrap();
        host.send_to(b"what", to).unwrap();
        host.send_to(b"22", to).unwrap();
        let listener = ReplyListener::new(own, host.local_addr().unwrap());
        let limit = Duration::from_secs(60);
        assert_eq!(listener.receive(Instant::now(), limit), Some(22));
        other.send_to(b"23", to).unwrap();
        let limit = Duration::from_millis(50);
        assert_eq!(listener.receive(Instant::now(), limit), None);
    }
}
