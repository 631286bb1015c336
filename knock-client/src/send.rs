//! Sending knocks, each without waiting for an answer.

use crate::destination::Destination;
use crate::refused;
use crate::remedy::remedy;
use crate::reply::ReplyListener;
use knock_sequence::{Knock, Protocol};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// The payload of a UDP knock: one byte, as knockd's client sends.
const DATAGRAM: [u8; 1] = [0];
/// The payload if a reply is wanted: a reply is never longer than the knock, so this has room for a port.
const ROOMY: [u8; 8] = [0; 8];
/// How many local ports are tried if one is taken.
const BINDS: usize = 8;

/// How knocks are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// The pause between them.
    pub delay: Duration,
    /// The time limit per TCP knock if each is a complete connection.
    pub handshake: Option<Duration>,
    /// Whether the last knock may be replied to.
    pub listen: bool,
}

/// A sequence that was sent.
#[derive(Debug)]
pub struct Sent {
    /// The moment just before the last knock was handed to the system.
    pub last: Instant,
    /// Where its reply arrives, if one is wanted.
    pub listener: Option<ReplyListener>,
}

/// A knock that could not be sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot send knock {number} of {of} ({knock}) to {destination}: {}; {}",
    refused::plain(cause),
    remedy(cause)
)]
pub struct SendError {
    /// The number of the knock in the sequence, from 1.
    pub number: usize,
    /// The length of the sequence.
    pub of: usize,
    /// The knock.
    pub knock: Knock,
    /// The host.
    pub destination: Destination,
    /// The system's error.
    pub cause: io::Error,
}

/// Sends the knocks in order with `delay` between them.
///
/// After each one, `sent` is called with its number, counted from 1. Returns the moment just
/// before the last knock was handed to the system, from which [`connect`](crate::connect)
/// counts; for an empty sequence that is now.
///
/// # Errors
///
/// The first knock that this machine could not send. Silence or a refusal of the host is not an error:
/// the knock has arrived or may have.
pub fn send(
    destination: &Destination,
    sequence: &[Knock],
    delay: Duration,
    sent: impl FnMut(usize, Knock),
) -> Result<Instant, SendError> {
    let send_options = SendOptions {
        delay,
        ..SendOptions::default()
    };
    Ok(send_with(destination, sequence, send_options, sent)?.last)
}

/// Sends the knocks like [`send`], with options.
///
/// # Errors
///
/// As for [`send`]; with handshakes, also the first that was not completed.
pub fn send_with(
    destination: &Destination,
    sequence: &[Knock],
    send_options: SendOptions,
    mut sent: impl FnMut(usize, Knock),
) -> Result<Sent, SendError> {
    let of = sequence.len();
    let mut done = Sent {
        last: Instant::now(),
        listener: None,
    };
    for (number, &knock) in (1..).zip(sequence) {
        if number > 1 && !send_options.delay.is_zero() {
            thread::sleep(send_options.delay);
        }
        let address = destination.at(knock.port);
        let listen = send_options.listen && number == of;
        done = match (knock.protocol, send_options.handshake) {
            (Protocol::Tcp, None) => send_syn(address, listen),
            (Protocol::Tcp, Some(limit)) => complete_handshake(address, limit, listen),
            (Protocol::Udp, _) => send_datagram(address, listen),
        }
        .map_err(|cause| SendError {
            number,
            of,
            knock,
            destination: *destination,
            cause,
        })?;
        sent(number, knock);
    }
    Ok(done)
}

/// Starts a connection and abandons it.
///
/// The SYN is on its way when `connect` returns. The socket must not outlive it by a second: the
/// system would send the SYN again, which is a wrong knock once the next one has arrived. Closing
/// a socket that has only sent its SYN sends nothing.
fn send_syn(address: SocketAddr, listen: bool) -> io::Result<Sent> {
    let (socket, listener) = tcp_socket(address, listen)?;
    socket.set_nonblocking(true)?;
    let last = Instant::now();
    match socket.connect(&address.into()) {
        Err(error) if !is_on_its_way(&error) => Err(error),
        Ok(()) | Err(_) => Ok(Sent { last, listener }),
    }
}

/// Makes a connection and ends it. The knock has arrived when the system's ACK has, which it sends
/// before `connect` returns.
fn complete_handshake(address: SocketAddr, limit: Duration, listen: bool) -> io::Result<Sent> {
    let (socket, listener) = tcp_socket(address, listen)?;
    socket.connect_timeout(&address.into(), limit)?;
    let last = Instant::now();
    Ok(Sent { last, listener })
}

/// Returns a socket to knock with, and one for datagrams with the same port if a reply is wanted.
fn tcp_socket(address: SocketAddr, listen: bool) -> io::Result<(Socket, Option<ReplyListener>)> {
    let new = || Socket::new(Domain::for_address(address), Type::STREAM, None);
    if !listen {
        return Ok((new()?, None));
    }
    let mut tries = 1;
    loop {
        let listener = UdpSocket::bind(any_port(address))?;
        let socket = new()?;
        match socket.bind(&listener.local_addr()?.into()) {
            Ok(()) => return Ok((socket, Some(ReplyListener::new(listener, address)))),
            Err(error) if tries >= BINDS || error.kind() != io::ErrorKind::AddrInUse => {
                return Err(error);
            }
            Err(_) => tries += 1,
        }
    }
}

/// Returns any port of this machine, with the family of an address.
fn any_port(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Sends one datagram from a separate socket, so that an ICMP error for an earlier knock is not
/// reported here.
fn send_datagram(address: SocketAddr, listen: bool) -> io::Result<Sent> {
    let socket = UdpSocket::bind(any_port(address))?;
    let datagram = if listen { &ROOMY[..] } else { &DATAGRAM };
    let last = Instant::now();
    match socket.send_to(datagram, address) {
        Err(error) if !is_on_its_way(&error) => Err(error),
        Ok(_) | Err(_) => Ok(Sent {
            last,
            listener: listen.then(|| ReplyListener::new(socket, address)),
        }),
    }
}

/// Returns whether the packet has left in spite of the error.
fn is_on_its_way(error: &io::Error) -> bool {
    // A refusal is the host's answer; on loopback it is there before the call returns.
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
    ) || is_in_progress(error)
}

#[cfg(unix)]
fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32)
}

/// Returns whether the error is [`io::ErrorKind::WouldBlock`].
#[cfg(not(unix))]
fn is_in_progress(_error: &io::Error) -> bool {
    false
}
