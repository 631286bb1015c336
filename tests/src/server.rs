//! The server behind the program: ports that echo, and a record of accepted connections.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use socket2::{Domain, Socket, Type};

use crate::{namespace::Namespace, wait};

type Peers = Arc<Mutex<Vec<(IpAddr, u16)>>>;

/// Listeners in a namespace, on all its addresses.
///
/// Their threads wait in system calls and end with this process. They don't keep the namespace alive, and a test has
/// few.
#[derive(Debug, Default)]
pub struct Server {
    peers: Peers,
}

impl Server {
    /// Listens on these TCP ports.
    ///
    /// # Panics
    /// A port is taken.
    #[track_caller]
    pub fn tcp(namespace: &Namespace, ports: &[u16]) -> Self {
        let server = Self::default();
        for &port in ports {
            match namespace.enter(|| listener(port)) {
                Ok(listener) => server.accept(listener, port),
                Err(error) => panic!("listening on tcp/{port}: {error}"),
            }
        }
        server
    }

    /// Echoes on a UDP port too.
    ///
    /// # Panics
    /// The port is taken.
    #[track_caller]
    pub fn and_udp(self, namespace: &Namespace, port: u16) -> Self {
        let socket = match namespace.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))) {
            Ok(socket) => socket,
            Err(error) => panic!("listening on udp/{port}: {error}"),
        };
        let peers = Arc::clone(&self.peers);
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                note(&peers, from, port);
                let _unreachable = socket.send_to(&buffer[..length], from);
            }
        });
        self
    }

    /// Waits until a connection or datagram of this source has reached this port.
    ///
    /// # Panics
    /// None has in time.
    #[track_caller]
    pub fn meets(&self, source: IpAddr, port: u16) {
        wait::until(&format!("{source} at port {port}"), || {
            self.met(source, port)
        });
    }

    /// Returns whether a connection or datagram of this source has ever reached this port.
    pub fn met(&self, source: IpAddr, port: u16) -> bool {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.contains(&(source, port))
    }

    /// Returns how many sources and ports were recorded.
    pub fn peers(&self) -> usize {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    fn accept(&self, listener: Socket, port: u16) {
        let peers = Arc::clone(&self.peers);
        thread::spawn(move || {
            while let Ok((socket, from)) = listener.accept() {
                if let Some(from) = from.as_socket() {
                    note(&peers, from, port);
                }
                thread::spawn(move || echo(socket.into()));
            }
        });
    }
}

/// Listens for both families on one socket, with a queue that no test fills.
fn listener(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(256)?;
    Ok(socket)
}

fn note(peers: &Peers, from: SocketAddr, port: u16) {
    peers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((from.ip().to_canonical(), port));
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
}
