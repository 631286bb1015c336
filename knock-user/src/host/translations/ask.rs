//! Reads rules from the kernel and from the programs that list them.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use caps::{CapSet, Capability};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;

use crate::host::{netlink, os_error};

/// The directories of these programs.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// The time limit of a program.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest output of a program, in bytes.
const MOST: u64 = 64 << 20;

/// The generation of the nftables rules of this network namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Generation {
    /// The kernel has no nftables.
    Absent,
    /// The number that every change of the rules increases.
    Number(u32),
    /// It refuses to answer.
    Refused(Errno),
}

impl Generation {
    /// Returns whether rules may exist.
    pub(super) const fn has_rules(self) -> bool {
        /// The generation of a network namespace without any change.
        const FIRST: u32 = 1;
        match self {
            Self::Absent => false,
            Self::Number(number) => number > FIRST,
            Self::Refused(_) => true,
        }
    }
}

/// Reads the generation of the nftables rules (`NFT_MSG_GETGEN`), which is cheap and runs no
/// program. It takes CAP_NET_ADMIN.
pub(super) fn generation() -> Generation {
    match asked() {
        Ok(Some(number)) => Generation::Number(number),
        Ok(None) => Generation::Absent,
        Err(error) => {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            // nfnetlink_rcv_msg() knows no such subsystem, or there is no nfnetlink.
            let is_absent = matches!(
                errno,
                Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::ECONNREFUSED
            );
            match is_absent {
                true => Generation::Absent,
                false => Generation::Refused(errno),
            }
        }
    }
}

fn asked() -> io::Result<Option<u32>> {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`.
    const GET: u16 = 10 << 8 | 16;
    const REQUEST: u16 = 1;
    /// `NLMSG_ERROR`.
    const ERROR: u16 = 2;
    /// `NFTA_GEN_ID`.
    const ID: u16 = 1;
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // The kernel answers before send() returns.
    socket.set_non_blocking(true)?;
    // nlmsghdr, and nfgenmsg: no family, version 0.
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend(GET.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.extend([0; 12]);
    socket.send(&request, 0)?;
    let mut answer = Vec::with_capacity(netlink::DATAGRAM);
    socket.recv(&mut answer, 0)?;
    let word = |at: usize| -> Option<[u8; 4]> { answer.get(at..at + 4)?.try_into().ok() };
    let half = |at: usize| -> Option<u16> {
        let bytes = answer.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_ne_bytes(bytes))
    };
    if half(4) == Some(ERROR) {
        let code = word(16).map_or(0, i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(-code));
    }
    // Attributes follow both headers: length, kind, value.
    let mut at = 20;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == ID {
            return Ok(word(at + 4).map(u32::from_be_bytes));
        }
        at += usize::from(length.max(4)).next_multiple_of(4);
    }
    Ok(None)
}

/// Returns whether the kernel has such tables of iptables-legacy; none if that can't be read.
pub(super) fn has_legacy(tables: &[&str]) -> Option<bool> {
    let mut is_known = true;
    for path in ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"] {
        match fs::read_to_string(path) {
            Ok(names) if names.lines().any(|name| tables.contains(&name)) => return Some(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => is_known = false,
        }
    }
    is_known.then_some(false)
}

/// The virtual services of IPVS; absent without its module.
const SERVICES: &str = "/proc/net/ip_vs";

/// Returns the list of the virtual services of IPVS in this network namespace; empty if there are none.
pub(super) fn services() -> String {
    fs::read_to_string(SERVICES).unwrap_or_default()
}

/// Returns a number that differs if the services may have changed. Numbers of connections are left out.
pub(super) fn services_version(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().take(3).collect();
        words.hash(&mut hasher);
    }
    hasher.finish()
}

/// Returns the output of the first of these programs that is installed, or the reason why there is
/// none.
pub(super) fn output(programs: &[&str], arguments: &[&str]) -> Result<String, String> {
    let found = programs.iter().find_map(|program| {
        let mut paths = DIRECTORIES.iter();
        let path = paths
            .find(|directory| fs::exists(format!("{directory}/{program}")).unwrap_or(false))?;
        Some(format!("{path}/{program}"))
    });
    let Some(path) = found else {
        return Err(format!("{} is not installed", programs.join(" or ")));
    };
    let mut command = Command::new(&path);
    command.args(arguments);
    // Capabilities belong to threads: only the child of this one gets it.
    let done = thread::spawn(move || {
        pass_capability();
        run(command)
    });
    let done = done.join();
    let output = done.unwrap_or_else(|_| Err("it could not be started".to_owned()));
    output.map_err(|because| format!("{path}: {because}"))
}

/// Passes CAP_NET_ADMIN, if this thread has it, to its child programs: those of users other than
/// root have none by themselves.
fn pass_capability() {
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        // Without it the program reports what it may not do.
        let _without = caps::raise(None, set, Capability::CAP_NET_ADMIN);
    }
}

fn run(mut command: Command) -> Result<String, String> {
    let command = command.env_clear().env("LC_ALL", "C");
    let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let started = pipes.stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| os_error::plain(&error))?;
    let (streams, read) = mpsc::channel();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        let mut text = String::new();
        let read = out.map_or(Ok(0), |out| out.take(MOST).read_to_string(&mut text));
        let mut complaint = String::new();
        let _silent = err.map(|err| err.take(MOST).read_to_string(&mut complaint));
        // The receiver may have timed out.
        let _late = streams.send(read.map(|_| (text, complaint)));
    });
    let read = read.recv_timeout(PATIENCE);
    if read.is_err() {
        let _ended = child.kill();
    }
    let status = child.wait().map_err(|error| os_error::plain(&error))?;
    let (text, complaint) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return Err(format!("what it writes: {}", os_error::plain(&error))),
        Err(_) => return Err(format!("it took longer than {} s", PATIENCE.as_secs())),
    };
    if text.len() as u64 == MOST {
        return Err("there are too many rules".to_owned());
    }
    if !status.success() {
        let complaint = complaint
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty());
        return Err(complaint
            .unwrap_or("it failed without a message")
            .to_owned());
    }
    Ok(text)
}
