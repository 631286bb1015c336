//! Listens on TCP addresses that the configuration names, which may appear later.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::os_error;

/// The most connections that the kernel queues.
const BACKLOG: i32 = 64;
/// The pause before listening is tried again.
pub const RETRY: Duration = Duration::from_secs(2);

/// Listens on an address, also on one that this host does not have yet. Must be called inside a tokio
/// runtime.
///
/// # Errors
/// Another program listens there, or the port is below 1024 and this process may not use it.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(at),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // The address may appear later, with its interface.
    match at {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_freebind_v6(true)?;
            // [::] includes IPv4, as in most programs.
            socket.set_only_v6(false)?;
        }
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Returns the warning about an address of a section of the configuration on which this process can't
/// listen.
pub fn refusal(section: &str, at: SocketAddr, error: &io::Error) -> String {
    let kind = error.kind();
    let help = if kind == ErrorKind::AddrInUse {
        format!("another program listens there: choose another port for {section} listen")
    } else if kind == ErrorKind::PermissionDenied {
        format!(
            "ports below 1024 are available only at the start, and to root: choose a higher one \
             for {section} listen"
        )
    } else {
        "knock-user tries again every few seconds".to_owned()
    };
    format!(
        "{section} can't listen on {at}: {}; {help}",
        os_error::plain(error)
    )
}
