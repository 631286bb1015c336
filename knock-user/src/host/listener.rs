//! Listens on TCP addresses that the configuration names, which may appear later.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

use super::os_error;

/// The most connections that the kernel queues.
const BACKLOG: i32 = 64;
/// The pause before listening is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A server at an address that a reload may change; it may be off. It ends when this is dropped.
#[derive(Debug, Default)]
pub struct Listening {
    at: Option<SocketAddr>,
    task: Option<JoinHandle<()>>,
}

impl Listening {
    /// Serves at another address, or stops. If it can't listen, it logs a warning that names the
    /// section of the configuration, and keeps trying. Must be called inside a tokio runtime.
    pub fn move_to<F>(
        &mut self,
        section: &str,
        at: Option<SocketAddr>,
        serve: impl FnOnce(TcpListener) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.at == at {
            return;
        }
        self.at = at;
        // The old listener may occupy the same port.
        self.stop();
        // The first attempt is made now, while this process may still have the capability for it.
        self.task = at.map(|at| {
            let first = listen(at);
            if let Err(error) = &first {
                tracing::warn!("{}", refusal(section, at, error));
            }
            tokio::spawn(async move { serve(until_bound(at, first.ok()).await).await })
        });
    }

    /// Takes a task that serves already at an address.
    #[cfg(test)]
    pub const fn serving(at: SocketAddr, task: JoinHandle<()>) -> Self {
        Self {
            at: Some(at),
            task: Some(task),
        }
    }

    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn until_bound(at: SocketAddr, mut listener: Option<TcpListener>) -> TcpListener {
    loop {
        match listener.take() {
            Some(listener) => return listener,
            None => sleep(RETRY).await,
        }
        listener = listen(at).ok();
    }
}

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
fn refusal(section: &str, at: SocketAddr, error: &io::Error) -> String {
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
