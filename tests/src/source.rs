//! A source on the client's side, with an address of its own.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use knock_common::packet::Protocol;
use socket2::{Domain, Socket, Type};

use crate::{namespace::Namespace, path::Path};

/// Less than the second after which a SYN is sent again, so that a connection succeeds with its first packet.
pub const FIRST_SYN: Duration = Duration::from_millis(900);
/// How long a connection that must succeed may take: on a busy machine the link may have no room
/// for the first SYN.
const OPEN: Duration = Duration::from_secs(5);
/// How long a connection that must fail is waited for. Packets cross the link while they are being sent, so a later
/// success is impossible.
const CLOSED: Duration = Duration::from_millis(60);
/// How long data on an established connection may take.
const ECHO: Duration = Duration::from_secs(5);

/// An address of the client that knocks on an address of the server.
#[derive(Clone, Copy, Debug)]
pub struct Source<'n> {
    /// The namespace from which its packets come.
    pub namespace: &'n Namespace,
    /// Its address.
    pub from: IpAddr,
    /// The server's address.
    pub to: IpAddr,
}

impl Source<'_> {
    /// Returns its address as text.
    pub fn name(&self) -> String {
        self.from.to_string()
    }

    /// Returns its address and the server's.
    pub fn path(&self) -> Path {
        Path {
            from: self.from,
            to: self.to,
        }
    }

    /// Returns the same source, to another address of the server.
    pub fn to(self, to: IpAddr) -> Self {
        Self { to, ..self }
    }

    /// Sends knocks without a pause: `tcp/7000 udp/8000`, or `wait/50ms` between them.
    ///
    /// # Panics
    /// They can't be sent.
    #[track_caller]
    pub fn knock(&self, knocks: &str) {
        let sent = self.namespace.enter(|| self.send(knocks));
        if let Err(error) = sent {
            panic!("{} knocks {knocks}: {error}", self.from);
        }
    }

    /// Knocks and connects right behind the last knock, within the time of the first SYN.
    ///
    /// # Errors
    /// The connection fails.
    pub fn knock_and_connect(&self, knocks: &str, port: u16) -> io::Result<TcpStream> {
        self.namespace.enter(|| {
            self.send(knocks)?;
            self.connect_here(port, FIRST_SYN)
        })
    }

    /// Connects, within `limit`.
    ///
    /// # Errors
    /// The connection fails.
    pub fn connect(&self, port: u16, limit: Duration) -> io::Result<TcpStream> {
        self.namespace.enter(|| self.connect_here(port, limit))
    }

    /// Asserts that the port is open.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn finds_open(&self, port: u16, row: &str) -> TcpStream {
        match self.connect(port, OPEN) {
            Ok(stream) => stream,
            Err(error) => panic!("{row}: tcp/{port} is not open for {}: {error}", self.from),
        }
    }

    /// Asserts that the port is closed, without an answer.
    ///
    /// # Panics
    /// It is open or refuses.
    #[track_caller]
    pub fn finds_closed(&self, port: u16, row: &str) {
        match self.connect(port, CLOSED) {
            Ok(_) => panic!("{row}: tcp/{port} is open for {}", self.from),
            Err(error) => assert_eq!(
                error.kind(),
                io::ErrorKind::TimedOut,
                "{row}: tcp/{port} is not silent for {}: {error}",
                self.from
            ),
        }
    }

    /// Asserts that the port is open if `open` is true, and else closed.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn finds(&self, open: bool, port: u16, row: &str) {
        if open {
            drop(self.finds_open(port, row));
        } else {
            self.finds_closed(port, row);
        }
    }

    /// Returns whether a datagram comes back from a UDP port within a short time.
    ///
    /// # Panics
    /// It can't be sent.
    #[track_caller]
    pub fn has_udp_echo(&self, port: u16) -> bool {
        let echoed = self.namespace.enter(|| {
            let socket = UdpSocket::bind((self.from, 0))?;
            socket.set_read_timeout(Some(CLOSED))?;
            socket.send_to(b"echo", (self.to, port))?;
            Ok::<_, io::Error>(socket.recv(&mut [0; 8]).is_ok())
        });
        match echoed {
            Ok(echoed) => echoed,
            Err(error) => panic!("udp/{port} from {}: {error}", self.from),
        }
    }

    /// Touches all these ports in their order, as fast as the kernel sends.
    ///
    /// # Panics
    /// They can't be sent.
    #[track_caller]
    pub fn scan(&self, protocol: Protocol, ports: impl IntoIterator<Item = u16> + Send) {
        let sent = self.namespace.enter(|| {
            let mut sender = KnockSender::new(self.from, self.to);
            ports
                .into_iter()
                .try_for_each(|port| sender.knock(protocol, port))
        });
        if let Err(error) = sent {
            panic!("{} scans: {error}", self.from);
        }
    }

    fn send(&self, knocks: &str) -> io::Result<()> {
        let mut sender = KnockSender::new(self.from, self.to);
        knocks
            .split_whitespace()
            .try_for_each(|knock| match parsed(knock) {
                Some(SourceStep::Knock(protocol, port)) => sender.knock(protocol, port),
                // A knock that waits needs real time.
                Some(SourceStep::Wait(time)) => {
                    std::thread::sleep(time);
                    Ok(())
                }
                None => Err(io::Error::other(format!("{knock} is not a knock"))),
            })
    }

    fn connect_here(&self, port: u16, limit: Duration) -> io::Result<TcpStream> {
        let to = SocketAddr::new(self.to, port);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(self.from, 0).into())?;
        socket.connect_timeout(&to.into(), limit)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

enum SourceStep {
    Knock(Protocol, u16),
    Wait(Duration),
}

fn parsed(knock: &str) -> Option<SourceStep> {
    let (word, rest) = knock.split_once('/')?;
    match word {
        "tcp" => Some(SourceStep::Knock(Protocol::Tcp, rest.parse().ok()?)),
        "udp" => Some(SourceStep::Knock(Protocol::Udp, rest.parse().ok()?)),
        "wait" => {
            let millis = rest.strip_suffix("ms")?.parse().ok()?;
            Some(SourceStep::Wait(Duration::from_millis(millis)))
        }
        _ => None,
    }
}

/// Sends knocks from the namespace of the calling thread.
struct KnockSender {
    from: IpAddr,
    to: IpAddr,
    udp: Option<UdpSocket>,
}

impl KnockSender {
    fn new(from: IpAddr, to: IpAddr) -> Self {
        Self {
            from,
            to,
            udp: None,
        }
    }

    fn knock(&mut self, protocol: Protocol, port: u16) -> io::Result<()> {
        match protocol {
            Protocol::Tcp => self.syn(port),
            Protocol::Udp => self.datagram(port),
        }
    }

    /// Sends one SYN: a socket that is closed before there is an answer sends nothing more.
    fn syn(&self, port: u16) -> io::Result<()> {
        let to = SocketAddr::new(self.to, port);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(self.from, 0).into())?;
        match socket.connect(&to.into()) {
            // Refused at once: the answer came while the SYN was being sent.
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn datagram(&mut self, port: u16) -> io::Result<()> {
        let socket = match self.udp.take() {
            Some(socket) => socket,
            None => UdpSocket::bind((self.from, 0))?,
        };
        let sent = socket.send_to(&[0], (self.to, port));
        self.udp = Some(socket);
        sent.map(drop)
    }
}

/// Returns whether a connection echoes what is sent.
pub fn echoes(stream: &mut TcpStream) -> bool {
    answer(stream, ECHO).is_ok_and(|answer| &answer == b"echo")
}

/// Returns whether nothing answers on a connection.
pub fn is_cut(stream: &mut TcpStream) -> bool {
    answer(stream, CLOSED).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn answer(stream: &mut TcpStream, limit: Duration) -> io::Result<[u8; 4]> {
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"echo")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
