//! The second machine: a namespace with a tap, which tries to get in, knocks and logs in.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use knock_sequence::spa::{Channel, DoorAction, DoorId, PORT, PrivateKey, Request};
use knock_tests::{
    binary::binaries,
    namespace::{Namespace, run, text},
    source::Source,
    ssh::SSH,
    wait,
};
use tempfile::TempDir;

use super::qemu::{PATIENCE, TAP};

/// The port of the other door, which one-time sequences open.
pub(crate) const ONCE: u16 = 2222;
/// An unused port: an answer shows that the machine is reachable.
const FREE: u16 = 7777;
/// The addresses of the machine.
pub(crate) const MACHINE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// The last parts of the addresses of this machine.
const FIRST: u8 = 2;
const LAST: u8 = 250;
/// How long a connection that must succeed may take, and one that must fail is tried.
const POSSIBLE: Duration = Duration::from_secs(60);
const CLOSED: Duration = Duration::from_secs(2);
/// How long one of many attempts takes.
const ATTEMPT: Duration = Duration::from_millis(250);

/// The namespace, its keys, and the number of addresses used so far.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) namespace: Arc<Namespace>,
    files: TempDir,
    alice: PrivateKey,
    host: PrivateKey,
    used: AtomicUsize,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new("outside");
        namespace.ip(&format!("tuntap add {TAP} mode tap"));
        let addresses: String = (FIRST..=LAST)
            .map(|number| {
                // Tools that choose an address themselves take the first one.
                let life = if number == FIRST {
                    ""
                } else {
                    "preferred_lft 0"
                };
                format!(
                    "addr add 192.0.2.{number}/24 dev {TAP}\n\
                     addr add 2001:db8::{number}/64 dev {TAP} nodad {life}\n"
                )
            })
            .collect();
        namespace.ip_batch(&addresses);
        namespace.ip(&format!("link set {TAP} up"));
        let files = tempfile::tempdir().unwrap();
        let key = files.path().join("id");
        let mut keygen = Command::new("ssh-keygen");
        run(keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key));
        let [alice, host] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let key = files.path().join("alice.key");
        fs::write(&key, alice.line().as_str()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            namespace: Arc::new(namespace),
            files,
            alice,
            host,
            used: AtomicUsize::new(FIRST.into()),
        }
    }

    /// Returns the public key for ssh.
    pub(crate) fn ssh_key(&self) -> String {
        fs::read_to_string(self.files.path().join("id.pub")).unwrap()
    }

    /// Returns the private key of the machine.
    pub(crate) fn host_key(&self) -> String {
        self.host.line().to_string()
    }

    /// Returns the public key of the user alice.
    pub(crate) fn alice(&self) -> String {
        self.alice.public().to_string()
    }

    /// Returns a source that has not been used, for each address of the machine.
    pub(crate) fn new_source(&self, to: IpAddr) -> Source<'_> {
        let number = self.used.fetch_add(1, Relaxed) + 1;
        assert!(number <= LAST.into(), "add addresses to the tap");
        let number = u8::try_from(number).unwrap();
        let from = match to {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)),
            // Written like decimal digits in its address.
            IpAddr::V6(_) => format!("2001:db8::{number}").parse().unwrap(),
        };
        Source {
            namespace: &self.namespace,
            from,
            to,
        }
    }

    /// Returns the source that the tools of this machine use.
    pub(crate) fn first_source(&self, to: IpAddr) -> Source<'_> {
        let from = match to {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, FIRST)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, FIRST.into())),
        };
        Source {
            namespace: &self.namespace,
            from,
            to,
        }
    }

    /// Returns new sources for both addresses of the machine.
    pub(crate) fn new_sources(&self) -> [Source<'_>; 2] {
        MACHINE.map(|to| self.new_source(to))
    }

    /// Returns a packet for alice's door, made now.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let request = Request {
            stamp: now.unwrap().as_nanos().try_into().unwrap(),
            source: None,
            door: DoorId::FIRST,
            seconds: 0,
            action: DoorAction::Open,
            answer: false,
        };
        let channel = Channel::new(&self.alice, self.host.public()).unwrap();
        channel.seal(&request).to_vec()
    }

    /// Sends such a packet.
    pub(crate) fn send(&self, source: &Source<'_>, packet: &[u8]) {
        let sent = source.namespace.enter(|| {
            let socket = UdpSocket::bind((source.from, 0))?;
            socket.send_to(packet, (source.to, PORT))
        });
        assert_eq!(sent.unwrap(), packet.len());
    }

    /// Runs knock-client with alice's key, from the first address; returns what it printed.
    #[track_caller]
    pub(crate) fn client_opens(&self, to: IpAddr, port: u16) -> String {
        let mut client = Command::new(&binaries().client);
        client.arg(to.to_string()).arg("--spa");
        client.arg(self.host.public().to_string()).arg("--key");
        client.arg(self.files.path().join("alice.key"));
        client.args(["--then-connect", &port.to_string(), "--timeout", "60s"]);
        self.namespace.enter(|| run(&mut client))
    }

    /// Logs in from an address and runs a command.
    pub(crate) fn ssh(&self, source: &Source<'_>, line: &str) -> Output {
        let mut ssh = self.ssh_command(source);
        self.namespace.enter(|| ssh.arg(line).output()).unwrap()
    }

    /// Logs in from an address; the session prints lines until it ends.
    pub(crate) fn session(&self, source: &Source<'_>) -> Session {
        let mut ssh = self.ssh_command(source);
        ssh.arg("while echo tick; do sleep 0.2; done")
            .stdout(Stdio::piped());
        let mut child = self.namespace.enter(|| ssh.spawn()).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ticks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ticks);
        thread::spawn(move || {
            for _ in lines.map_while(Result::ok) {
                counted.fetch_add(1, Relaxed);
            }
        });
        let session = Session { child, ticks };
        session.continues("at its start");
        session
    }

    fn ssh_command(&self, source: &Source<'_>) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(self.files.path().join("id"));
        ssh.args(["-F", "none", "-b", &source.name()]);
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=240",
            "LogLevel=ERROR",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("root@{}", source.to)).stdin(Stdio::null());
        ssh
    }

    /// Tries to get in, from now on and all the time, from addresses that have never knocked.
    pub(crate) fn attempts(&self) -> ConnectionAttempts {
        let done = Arc::new(AtomicBool::new(false));
        let tried = MACHINE.map(|to| {
            let source = self.new_source(to);
            let (from, to) = (source.from, source.to);
            let namespace = Arc::clone(&self.namespace);
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let source = Source {
                    namespace: &namespace,
                    from,
                    to,
                };
                let mut tried = Tried::default();
                while !done.load(Relaxed) {
                    tried.reached += usize::from(is_reachable(&source, ATTEMPT));
                    for port in [SSH, ONCE] {
                        if is_open(&source, port, ATTEMPT) {
                            tried.in_at.push((port, Instant::now()));
                        }
                        tried.count += 1;
                    }
                }
                tried
            })
        });
        ConnectionAttempts { done, tried }
    }
}

fn is_open(source: &Source<'_>, port: u16, limit: Duration) -> bool {
    source.connect(port, limit).is_ok()
}

/// Returns whether the unused port refuses a connection.
fn is_reachable(source: &Source<'_>, limit: Duration) -> bool {
    source
        .connect(FREE, limit)
        .is_err_and(|error| is_refusal(&error))
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// Asserts that a port is open for a source, or is not. Another one shows that the machine is reachable.
#[track_caller]
pub(crate) fn finds(source: &Source<'_>, open: bool, port: u16, row: &str) {
    let name = source.name();
    let reached = wait::poll(POSSIBLE, || is_reachable(source, ATTEMPT).then_some(()));
    assert!(
        reached.is_some(),
        "{row}: {name}: the machine is unreachable"
    );
    let limit = if open { POSSIBLE } else { CLOSED };
    let tried = source.connect(port, limit);
    let silent = tried.as_ref().is_err_and(|error| !is_refusal(error));
    let right = if open { tried.is_ok() } else { silent };
    assert!(
        right,
        "{row}: tcp/{port} from {name}, expected open = {open}: {tried:?}"
    );
}

/// Asserts that a source gets no answer at any port, not even the refusal of an unused one, while another one does.
#[track_caller]
pub(crate) fn finds_nothing(source: &Source<'_>, other: &Source<'_>, row: &str) {
    finds(other, false, SSH, row);
    for port in [FREE, SSH] {
        let tried = source.connect(port, CLOSED);
        let silent = tried.as_ref().is_err_and(|error| !is_refusal(error));
        assert!(
            silent,
            "{row}: tcp/{port} from {}: {tried:?}",
            source.name()
        );
    }
}

/// What attempts found.
#[derive(Debug, Default)]
struct Tried {
    count: usize,
    /// Connections to the free port: only then the other attempts show anything.
    reached: usize,
    in_at: Vec<(u16, Instant)>,
}

/// Attempts that continue beside a test.
#[derive(Debug)]
pub(crate) struct ConnectionAttempts {
    done: Arc<AtomicBool>,
    tried: [JoinHandle<Tried>; 2],
}

impl ConnectionAttempts {
    /// Ends them; the machine was reachable, and none got in.
    #[track_caller]
    pub(crate) fn all_failed(self, row: &str) {
        let began = Instant::now();
        self.done.store(true, Relaxed);
        for (tried, to) in self.tried.into_iter().zip(MACHINE) {
            let tried = tried.join().unwrap();
            assert!(
                tried.reached > 0,
                "{row}: {to} was never reached: {tried:?}"
            );
            let ago = |at: &Instant| began.saturating_duration_since(*at);
            let got_in = tried.in_at.iter().map(|(port, at)| (port, ago(at)));
            let got_in: Vec<_> = got_in.collect();
            assert!(got_in.is_empty(), "{row}: {to}: got in, ago: {got_in:?}");
        }
    }
}

/// An ssh session that prints lines.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    ticks: Arc<AtomicUsize>,
}

impl Session {
    /// Waits for more lines.
    #[track_caller]
    pub(crate) fn continues(&self, row: &str) {
        let before = self.ticks.load(Relaxed);
        let more = || (self.ticks.load(Relaxed) > before + 1).then_some(());
        let continued = wait::poll(PATIENCE, more);
        assert!(continued.is_some(), "{row}: the session does not continue");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns what a login printed, which succeeded.
#[track_caller]
pub(crate) fn printed(output: &Output, row: &str) -> String {
    assert!(output.status.success(), "{row}: {}", text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
