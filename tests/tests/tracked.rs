//! Connections that a router forwards or translates, and that exist when knock-user starts.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use knock_common::packet::Protocol;
use knock_tests::{
    binary::binaries,
    daemon::{Daemon, config_file, wait_for_event},
    namespace::Namespace,
    net::{self, Family, Net, SERVER_LINK},
    process::Process,
    server::Server,
    source::{Source, echoes, is_cut},
    wait,
};
use knock_user::host::tracked;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// The published port, and the port of the container's service.
const WEB: u16 = 8080;
const SERVICE: u16 = 80;
/// The same with UDP.
const DNS: u16 = 5300;
const DNS_SERVICE: u16 = 53;
/// A protected port that the container takes for a connection of its own.
const OUTWARD: u16 = 8081;
/// A published port that is not protected.
const OPEN: u16 = 8082;
/// The port of a server on the client's side.
const ELSEWHERE: u16 = 443;

const DOOR: &str = r#"
    [[door]]
    name = "web"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/8080-8081", "udp/5300"]
"#;

/// Rules as an administrator writes them.
const RULES: &str = r#"
    table inet nat {
        chain in {
            type nat hook prerouting priority dstnat;
            iifname "b0" tcp dport { 8080, 8082 } dnat ip to 172.17.0.2:80
            iifname "b0" tcp dport { 8080, 8082 } dnat ip6 to [fd00:17::2]:80
            iifname "b0" udp dport 5300 dnat ip to 172.17.0.2:53
            iifname "b0" udp dport 5300 dnat ip6 to [fd00:17::2]:53
        }
        chain out {
            type nat hook postrouting priority srcnat;
            oifname "b0" masquerade
        }
    }
"#;

#[test]
fn connections_through_a_router_continue_after_a_start() {
    for family in Family::ALL {
        net::test(|net| {
            let router = Router::new(net);
            let published = net.new_source(family);
            let mut to_container = published.finds_open(WEB, "published");
            let routed = net.new_source(family).to(container(family));
            let mut to_service = routed.finds_open(WEB, "routed");
            let other_port = net.new_source(family);
            let mut unprotected = other_port.finds_open(OPEN, "another port");
            let mut outward = router.outward(family);
            let stream = Datagrams::new(net.new_source(family));
            stream.is_established(&net.server);
            let once = Datagrams::new(net.new_source(family));
            assert!(once.are_answered(), "{family}: a single exchange");
            let ended = net.new_source(family);
            drop(ended.finds_open(WEB, "ended"));

            let daemon = Daemon::start(&net.server, DOOR);
            let port = |stream: &TcpStream| stream.local_addr().unwrap().port();
            let expected = [
                ("tcp", WEB, published.from, port(&to_container)),
                ("tcp", WEB, routed.from, port(&to_service)),
                ("tcp", OUTWARD, family.client(), ELSEWHERE),
                ("udp", DNS, stream.source.from, stream.port()),
            ];
            daemon.catches_up(&net.new_source(family), WEB);
            let kept = daemon.events_like(&json!({"event": "kept"}));
            assert_eq!(flows(&kept), texts(expected), "{family}");

            let row = &family.to_string();
            assert!(echoes(&mut to_container), "{row}: published");
            assert!(echoes(&mut to_service), "{row}: routed");
            assert!(echoes(&mut outward), "{row}: from the container");
            assert!(echoes(&mut unprotected), "{row}: another port");
            assert!(stream.are_answered(), "{row}: datagrams");
            assert!(!once.are_answered(), "{row}: a single exchange");
            for source in [published, ended, net.new_source(family)] {
                source.finds_closed(WEB, row);
                assert!(!source.has_udp_echo(DNS), "{row}: new datagrams");
            }
            daemon.stop();
        });
    }
}

/// A reload records what it newly protects. A restart of a configuration that is in force records
/// nothing: a flow that has expired stays expired.
#[test]
fn what_was_judged_before_is_not_recorded_again() {
    net::test(|net| {
        let _router = Router::new(net);
        let source = net.new_source(Family::V4);
        let mut connection = source.finds_open(WEB, "not protected yet");
        let other = DOOR.replace("8080-8081", "8081");
        let idle = "[established]\nidle = \"1s\"\n";
        let mut daemon = Daemon::start_with(
            &net.server,
            &other,
            &["--iface", SERVER_LINK, "--on-exit", "keep"],
        );
        assert!(echoes(&mut connection), "another port is protected");
        daemon.reload(&format!("{idle}{DOOR}"));
        let kept = json!({"event": "kept", "source": source.name(), "port": WEB});
        daemon.wait_for_event(&kept);
        assert!(echoes(&mut connection), "the port is protected by a reload");
        let closed = json!({"event": "closed", "reason": "idle", "source": source.name()});
        daemon.wait_for_event(&closed);
        assert!(is_cut(&mut connection), "the flow has expired");
        daemon.leave(Signal::SIGTERM);

        let daemon = Daemon::start(&net.server, &format!("{idle}{DOOR}"));
        assert!(is_cut(&mut connection), "after a restart");
        assert_eq!(daemon.events_like(&kept), [] as [Value; 0]);
        daemon.stop();
    });
}

#[test]
fn connections_that_cannot_be_listed_are_counted() {
    /// Refuses sockets of netfilter, as a kernel does that has no such netlink.
    const REFUSED: &str = r#"
import ctypes, os, platform, struct, sys
number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
step = lambda code, yes, no, k: struct.pack("HBBI", code, yes, no, k)
program = b"".join([
    step(0x20, 0, 0, 0), step(0x15, 0, 5, number),
    step(0x20, 0, 0, 16), step(0x15, 0, 3, 16),
    step(0x20, 0, 0, 32), step(0x15, 0, 1, 12),
    step(0x06, 0, 0, 0x00050000 | 93),
    step(0x06, 0, 0, 0x7fff0000),
])
text = ctypes.create_string_buffer(program)
header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(header), 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#;
    net::test(|net| {
        let _router = Router::new(net);
        let source = net.new_source(Family::V4);
        let mut connection = source.finds_open(WEB, "not protected yet");
        let config = config_file(DOOR.as_bytes());
        let mut command = Command::new("python3");
        command.args(["-c", REFUSED]).arg(&binaries().user);
        command.arg("--config").arg(config.path());
        command.args(["--iface", SERVER_LINK, "--json"]);
        let process = Process::start(&net.server, command.stdin(Stdio::null()));
        wait_for_event(&process, &json!({"event": "protecting"}));
        let printed = process.stderr();
        for words in [
            "this host tracks ",
            "can't list them",
            "nf_conntrack_netlink",
        ] {
            assert!(printed.contains(words), "no {words:?} in {printed}");
        }
        assert!(is_cut(&mut connection));
        process.stop(Signal::SIGINT);
    });
}

/// The server, as a router with a container behind it.
struct Router {
    container: Namespace,
    _services: [Server; 2],
}

impl Router {
    fn new(net: &Net) -> Self {
        let container = Namespace::new("c");
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            net.server.sysctl(switch, "1");
        }
        container.sysctl("ipv6/conf/default/accept_dad", "0");
        net.server.ip(&format!(
            "link add d0 type veth peer name c0 netns {}",
            container.name()
        ));
        net.server.ip_batch(
            "address add 172.17.0.1/16 dev d0
             address add fd00:17::1/64 dev d0 nodad
             link set d0 up",
        );
        container.ip_batch(
            "address add 172.17.0.2/16 dev c0
             address add fd00:17::2/64 dev c0 nodad
             link set lo up
             link set c0 up
             route add default via 172.17.0.1
             route add default via fd00:17::1",
        );
        net.client.ip_batch(
            "route add 172.17.0.0/16 via 192.0.2.2
             route add fd00:17::/64 via 2001:db8::2",
        );
        let rules = config_file(RULES.as_bytes());
        net.server
            .run("nft", &["-f", &rules.path().display().to_string()]);
        let service = Server::tcp(&container, &[SERVICE, WEB]).and_udp(&container, DNS_SERVICE);
        let elsewhere = Server::tcp(&net.client, &[ELSEWHERE]);
        Self {
            container,
            _services: [service, elsewhere],
        }
    }

    /// Opens a connection from the container, with a port that the host protects and that its
    /// masquerading keeps.
    fn outward(&self, family: Family) -> TcpStream {
        let from = SocketAddr::new(container(family), OUTWARD);
        let to = SocketAddr::new(family.client(), ELSEWHERE);
        let connect = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
            Ok(socket.into())
        };
        let mut stream = match self.container.enter(connect) {
            Ok(stream) => stream,
            Err(error) => panic!("{from} to {to}: {error}"),
        };
        assert!(echoes(&mut stream), "{from} to {to}");
        stream
    }
}

fn container(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([172, 17, 0, 2]),
        Family::V6 => IpAddr::from([0xfd00, 0x17, 0, 0, 0, 0, 0, 2]),
    }
}

/// A client that exchanges datagrams from one port.
struct Datagrams<'n> {
    source: Source<'n>,
    socket: UdpSocket,
}

impl<'n> Datagrams<'n> {
    fn new(source: Source<'n>) -> Self {
        let made = source.namespace.enter(|| {
            let socket = UdpSocket::bind((source.from, 0))?;
            socket.connect((source.to, DNS))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            Ok::<_, io::Error>(socket)
        });
        match made {
            Ok(socket) => Self { source, socket },
            Err(error) => panic!("{}: {error}", source.from),
        }
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    fn are_answered(&self) -> bool {
        let exchange = |_| -> io::Result<usize> {
            self.socket.send(b"echo")?;
            self.socket.recv(&mut [0; 8])
        };
        // A busy machine may lose one.
        (0..3).map(exchange).any(|answer| answer.is_ok())
    }

    /// Exchanges datagrams until the kernel counts them as a stream, which takes two seconds.
    fn is_established(&self, router: &Namespace) {
        let end = SocketAddr::new(self.source.from, self.port());
        wait::until(&format!("datagrams of {end} as a stream"), || {
            assert!(self.are_answered(), "{end}");
            let mut is_there = false;
            let listed = router.enter(|| {
                tracked::list(Duration::from_secs(5), |connection| {
                    let first = connection.first;
                    is_there |= first.source == end && first.protocol == Protocol::Udp;
                })
            });
            assert!(listed.unwrap(), "the whole table");
            is_there
        });
    }
}

/// Returns the connections in events, as text.
fn flows(events: &[Value]) -> BTreeSet<String> {
    let text = |event: &Value| {
        let field = |name: &str| event[name].to_string().trim_matches('"').to_owned();
        ["protocol", "port", "source", "source_port"]
            .map(field)
            .join(" ")
    };
    events.iter().map(text).collect()
}

fn texts(flows: [(&str, u16, IpAddr, u16); 4]) -> BTreeSet<String> {
    let text =
        |(protocol, port, source, source_port)| format!("{protocol} {port} {source} {source_port}");
    flows.map(text).into_iter().collect()
}
