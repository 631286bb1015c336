//! Hosts to knock on and connect to.

#![expect(dead_code, reason = "every test binary uses a part of it")]

pub(crate) mod machine;
pub(crate) mod spa;

use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// The addresses of both families; every test uses both.
pub(crate) const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// A UDP port that receives knocks.
pub(crate) struct KnockPort(UdpSocket);

impl KnockPort {
    pub(crate) fn bind(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).expect("loopback");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().expect("bound").port()
    }

    /// Returns the next datagram.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut bytes = [0xff; 64];
        let length = uninterrupted(|| self.0.recv(&mut bytes)).expect("a datagram within the time");
        bytes[..length].to_vec()
    }

    /// Returns whether no datagram has arrived.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.set_nonblocking(true).expect("non-blocking");
        let received = self.0.recv(&mut [0; 64]);
        self.0.set_nonblocking(false).expect("blocking");
        matches!(received, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// A reserved TCP port that refuses connections until it is opened.
pub(crate) struct ReservedPort(Socket);

impl ReservedPort {
    pub(crate) fn new(ip: IpAddr) -> Self {
        let address = SocketAddr::new(ip, 0);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
        socket.bind(&address.into()).expect("loopback");
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        port(&self.0)
    }

    pub(crate) fn open(self) -> TcpListener {
        self.0.listen(16).expect("listening");
        self.0.into()
    }
}

/// A TCP port with a listener.
pub(crate) struct OpenPort(TcpListener);

impl OpenPort {
    pub(crate) fn new(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("loopback");
        listener.set_nonblocking(true).expect("non-blocking");
        Self(listener)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().expect("bound").port()
    }

    pub(crate) fn accepts_within(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        loop {
            if self.0.accept().is_ok() {
                return true;
            }
            if begin.elapsed() > limit {
                return false;
            }
            thread::yield_now();
        }
    }
}

/// A port that answers nothing: its queue of connections is full.
pub(crate) struct SilentPort {
    listener: Socket,
    filler: TcpStream,
}

impl SilentPort {
    pub(crate) fn new(ip: IpAddr) -> Self {
        let listener = ReservedPort::new(ip).0;
        listener.listen(0).expect("listening");
        let filler = TcpStream::connect((ip, port(&listener))).expect("the first one gets in");
        Self { listener, filler }
    }

    pub(crate) fn port(&self) -> u16 {
        port(&self.listener)
    }

    /// Makes room in the queue.
    pub(crate) fn answer(self) -> Socket {
        self.listener.listen(16).expect("a longer queue");
        self.listener
    }
}

fn port(socket: &Socket) -> u16 {
    let address = socket.local_addr().expect("bound");
    address.as_socket().expect("an IP address").port()
}

/// Repeats a call that a signal has interrupted; the system does not restart it for a socket with a timeout.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
