//! Sending knocks, each without waiting for an answer.

use crate::failure::remedy;
use crate::knock::{Knock, Protocol};
use crate::target::Target;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// What a UDP knock carries; one byte, as knockd's client sends.
const DATAGRAM: [u8; 1] = [0];

/// A knock that could not be sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot send knock {number} of {of} ({knock}) to {target}: {cause}; {}",
    remedy(cause)
)]
pub struct SendError {
    /// Which knock of the sequence, counted from 1.
    pub number: usize,
    /// How long the sequence is.
    pub of: usize,
    /// The knock.
    pub knock: Knock,
    /// Whom it was for.
    pub target: Target,
    /// What the system said.
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
/// The first knock that this machine could not send. That nobody answers, or that the host
/// refuses, is not an error: the knock was heard.
pub fn send(
    target: &Target,
    sequence: &[Knock],
    delay: Duration,
    mut sent: impl FnMut(usize, Knock),
) -> Result<Instant, SendError> {
    let of = sequence.len();
    let mut last = Instant::now();
    for (number, &knock) in (1..).zip(sequence) {
        if number > 1 && !delay.is_zero() {
            thread::sleep(delay);
        }
        let address = target.at(knock.port);
        last = match knock.protocol {
            Protocol::Tcp => send_syn(address),
            Protocol::Udp => send_datagram(address),
        }
        .map_err(|cause| SendError {
            number,
            of,
            knock,
            target: *target,
            cause,
        })?;
        sent(number, knock);
    }
    Ok(last)
}

/// Begins a connection and gives it up.
///
/// The SYN is on its way when `connect` returns. The socket must not outlive it by a second: the
/// system would send the SYN again, which is a wrong knock once the next one has arrived. Closing
/// a socket that has only sent its SYN sends nothing.
fn send_syn(address: SocketAddr) -> io::Result<Instant> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let moment = Instant::now();
    match socket.connect(&address.into()) {
        Err(error) if !is_on_its_way(&error) => Err(error),
        Ok(()) | Err(_) => Ok(moment),
    }
}

/// Sends one datagram, from a socket of its own: what ICMP answers to an earlier knock is not
/// reported there.
fn send_datagram(address: SocketAddr) -> io::Result<Instant> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    let moment = Instant::now();
    match socket.send_to(&DATAGRAM, address) {
        Err(error) if !is_on_its_way(&error) => Err(error),
        Ok(_) | Err(_) => Ok(moment),
    }
}

/// Whether the packet has left in spite of the error.
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

/// Elsewhere a connection that is being made is [`io::ErrorKind::WouldBlock`].
#[cfg(not(unix))]
fn is_in_progress(_error: &io::Error) -> bool {
    false
}
