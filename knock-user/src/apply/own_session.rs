//! Finds the SSH connection of the user, and warns if a configuration would cut it.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process,
};

use knock_common::{Address, packet::Protocol};

use crate::{
    host::sockets::{self, TcpConnection},
    model::settings::{Door, Prefix, Settings},
};

/// The variable that sshd sets for login sessions.
const VARIABLE: &str = "SSH_CONNECTION";
/// More ancestors than a chain of terminal, shell, multiplexer and `sudo` has.
const ANCESTORS_MOST: usize = 64;

/// Returns the SSH connection through which this process was started, if it still exists.
///
/// `sudo` removes the variable, so the environments of ancestors are read, too. The kernel shows
/// them only to processes with the same rights: call this before capabilities are dropped.
pub fn own() -> Option<TcpConnection> {
    let connection = of(Path::new("/proc"), process::id())?;
    // A multiplexer keeps the variable of the session that started it, which may have ended.
    let connections = sockets::connections().ok()?;
    connections.contains(&connection).then_some(connection)
}

/// Returns the nearest SSH connection in the environments of a process and its ancestors.
fn of(proc: &Path, process: u32) -> Option<TcpConnection> {
    let mut process = process;
    for _ in 0..ANCESTORS_MOST {
        let directory = proc.join(process.to_string());
        let environment = fs::read(directory.join("environ")).unwrap_or_default();
        if let Some(connection) = connection_in(&environment) {
            return Some(connection);
        }
        let status = fs::read_to_string(directory.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        process = parent.trim().parse().ok().filter(|&parent| parent != 0)?;
    }
    None
}

fn connection_in(environment: &[u8]) -> Option<TcpConnection> {
    environment.split(|&byte| byte == 0).find_map(|variable| {
        let value = str::from_utf8(variable).ok()?.strip_prefix(VARIABLE)?;
        connection(value.strip_prefix('=')?)
    })
}

/// Parses `PEER PORT LOCAL PORT`, the form that sshd writes.
fn connection(text: &str) -> Option<TcpConnection> {
    let mut words = text.split_ascii_whitespace();
    let mut end = || {
        // A link-local address has the suffix `%interface`.
        let address = words.next()?.split('%').next()?;
        let address: IpAddr = address.parse().ok()?;
        let port = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address.to_canonical(), port))
    };
    let (peer, local) = (end()?, end()?);
    Some(TcpConnection { local, peer })
}

/// The effect of a configuration on a TCP connection of this host that comes in through a protected
/// interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Impact {
    /// Nothing: its port is not protected, or its source is trusted.
    Untouched,
    /// The connection continues, but a new one needs a grant.
    Continues(Access),
    /// Its packets are dropped until there is a grant.
    Cut(Access),
    /// Its packets are dropped, because this prefix of the block list has its source.
    Blocked(TcpConnection, Prefix),
}

/// A connection, and the doors that admit a new one like it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    /// The connection.
    pub connection: TcpConnection,
    /// The doors that open its port.
    pub doors: Vec<String>,
}

/// Returns the effect of a configuration on a connection.
pub fn impact(connection: TcpConnection, settings: &Settings) -> Impact {
    let TcpConnection { local, peer } = connection;
    let protected = settings.protected();
    if is_trusted(peer.ip(), settings) {
        return Impact::Untouched;
    }
    if let Some(prefix) = settings.block.iter().find(|prefix| prefix.has(peer.ip())) {
        return Impact::Blocked(connection, *prefix);
    }
    if !protected.has(Protocol::Tcp, local.port()) {
        return Impact::Untouched;
    }
    let opens = |door: &&Door| {
        door.target.is_none_or(|target| target == local.ip())
            && door.opened().iter().any(|ports| {
                ports.protocol == Protocol::Tcp
                    && (ports.first..=ports.last).contains(&local.port())
            })
    };
    let doors = settings.doors.iter().filter(opens);
    let needs = Access {
        connection,
        doors: doors.map(|door| door.name.clone()).collect(),
    };
    if settings.established.keep {
        Impact::Continues(needs)
    } else {
        Impact::Cut(needs)
    }
}

fn is_trusted(source: IpAddr, settings: &Settings) -> bool {
    let number = |address: Address| u128::from_be_bytes(address.octets());
    settings.trust.iter().any(|prefix| {
        let (address, bits) = prefix.mapped();
        (number(address) ^ number(source.into())).leading_zeros() >= bits
    })
}

impl Impact {
    /// Returns the warning to print before anything is attached.
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Untouched => None,
            Self::Continues(needs) => Some(format!(
                "{needs} continues, {}",
                needs.for_new_connections()
            )),
            Self::Cut(needs) => Some(format!(
                "{needs} will be cut, because of [established] keep = false, {}; to keep it, set \
                 keep = true, or trust = [\"{}\"]",
                needs.for_new_connections(),
                needs.connection.peer.ip()
            )),
            Self::Blocked(connection, prefix) => Some(format!(
                "{} will be cut, because [block] has {prefix}: remove that, or set trust = [\"{}\"]",
                named(connection),
                connection.peer.ip()
            )),
        }
    }
}

fn named(connection: &TcpConnection) -> String {
    let TcpConnection { local, peer } = connection;
    format!(
        "your SSH connection from {} to tcp/{}",
        peer.ip(),
        local.port()
    )
}

impl Access {
    fn for_new_connections(&self) -> String {
        let port = self.connection.local.port();
        match self.doors.as_slice() {
            [] => format!(
                "and no door opens tcp/{port} for another one: add one, or trust = [\"{}\"]",
                self.connection.peer.ip()
            ),
            doors => {
                let names: Vec<_> = doors.iter().map(|name| format!("\"{name}\"")).collect();
                format!("and a new one needs a knock at door {}", names.join(" or "))
            }
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&named(&self.connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn between(peer: &str, local: &str) -> TcpConnection {
        TcpConnection {
            peer: peer.parse().unwrap(),
            local: local.parse().unwrap(),
        }
    }

    #[test]
    fn the_form_of_sshd_is_parsed() {
        let v4 = between("203.0.113.9:50022", "192.0.2.2:22");
        let v6 = between("[2001:db8::9]:50022", "[2001:db8::2]:2222");
        let local = between("[fe80::1]:50022", "[fe80::2]:22");
        for (name, text, expected) in [
            ("IPv4", "203.0.113.9 50022 192.0.2.2 22", Some(v4)),
            ("IPv6", "2001:db8::9 50022 2001:db8::2 2222", Some(v6)),
            (
                "IPv4 in IPv6",
                "::ffff:203.0.113.9 50022 ::ffff:192.0.2.2 22",
                Some(v4),
            ),
            (
                "link-local",
                "fe80::1%eth0 50022 fe80::2%eth0 22",
                Some(local),
            ),
            ("unknown", "UNKNOWN 65535 UNKNOWN 65535", None),
            ("too short", "203.0.113.9 50022 192.0.2.2", None),
            ("empty", "", None),
            ("no port", "203.0.113.9 x 192.0.2.2 22", None),
        ] {
            assert_eq!(connection(text), expected, "{name}");
        }
    }

    /// Process id, parent, environment.
    type Entry<'a> = (u32, u32, &'a str);

    /// Creates a `/proc` with these processes.
    fn proc(processes: &[Entry<'_>]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (process, parent, environment) in processes {
            let directory = proc.path().join(process.to_string());
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("environ"), environment).unwrap();
            let status = format!("Name:\tx\nPid:\t{process}\nPPid:\t{parent}\nUid:\t0\n");
            fs::write(directory.join("status"), status).unwrap();
        }
        proc
    }

    #[test]
    fn the_nearest_ancestor_with_a_connection_is_found() {
        const SSH: &str = "TERM=xterm\0SSH_CONNECTION=203.0.113.9 50022 192.0.2.2 22\0LANG=C\0";
        let other = SSH.replace("50022", "50023");
        let found = between("203.0.113.9:50022", "192.0.2.2:22");
        let rows: [(&str, Vec<Entry<'_>>, Option<TcpConnection>); 7] = [
            ("its own", vec![(90, 1, SSH)], Some(found)),
            (
                "after sudo",
                vec![(90, 80, "TERM=x\0"), (80, 70, ""), (70, 1, SSH)],
                Some(found),
            ),
            (
                "the nearest",
                vec![(90, 80, SSH), (80, 1, &other)],
                Some(found),
            ),
            ("none", vec![(90, 1, "TERM=x\0"), (1, 0, "")], None),
            (
                "another variable",
                vec![(90, 1, "MY_SSH_CONNECTION=203.0.113.9 50022 192.0.2.2 22\0")],
                None,
            ),
            ("a parent that is gone", vec![(90, 80, "")], None),
            ("a circle", vec![(90, 80, ""), (80, 90, "")], None),
        ];
        for (name, processes, expected) in rows {
            let proc = proc(&processes);
            assert_eq!(of(proc.path(), 90), expected, "{name}");
        }
    }

    const DOORS: &str = r#"
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "udp/8000", "tcp/9000"]
        open = ["tcp/22", "udp/2222"]

        [[door]]
        name = "all"
        knock = ["tcp/7001", "udp/8001", "tcp/9001"]
        open = ["tcp/20-30"]

        [[door]]
        name = "elsewhere"
        knock = ["tcp/7002", "udp/8002", "tcp/9002"]
        open = ["tcp/22"]
        target = "192.0.2.3"
    "#;

    #[test]
    fn the_impact_depends_on_ports_trust_and_keep() {
        let v4 = between("203.0.113.9:50022", "192.0.2.2:22");
        let v6 = between("[2001:db8::9]:50022", "[2001:db8::2]:22");
        let with_port = |port| TcpConnection {
            local: SocketAddr::new(v4.local.ip(), port),
            ..v4
        };
        let continues = |connection, doors: &[&str]| {
            Impact::Continues(Access {
                connection,
                doors: doors.iter().map(ToString::to_string).collect(),
            })
        };
        let rows = [
            ("two doors", "", v4, continues(v4, &["ssh", "all"])),
            ("IPv6", "", v6, continues(v6, &["ssh", "all"])),
            (
                "one door",
                "",
                with_port(23),
                continues(with_port(23), &["all"]),
            ),
            ("not protected", "", with_port(443), Impact::Untouched),
            ("UDP alone is", "", with_port(2222), Impact::Untouched),
            (
                "protected without a door",
                "protect = [\"tcp/443\"]",
                with_port(443),
                continues(with_port(443), &[]),
            ),
            (
                "trusted",
                "trust = [\"203.0.113.0/24\"]",
                v4,
                Impact::Untouched,
            ),
            (
                "trusted alone",
                "trust = [\"203.0.113.9\"]",
                v4,
                Impact::Untouched,
            ),
            (
                "trusted IPv6",
                "trust = [\"2001:db8::/32\"]",
                v6,
                Impact::Untouched,
            ),
            (
                "blocked",
                "block = { prefixes = [\"203.0.113.0/24\"] }",
                v4,
                Impact::Blocked(v4, "203.0.113.0/24".parse().unwrap()),
            ),
            (
                "blocked, to an open port",
                "block = { prefixes = [\"2001:db8::/32\", \"203.0.113.9\"] }",
                with_port(443),
                Impact::Blocked(with_port(443), "203.0.113.9".parse().unwrap()),
            ),
            (
                "others are blocked",
                "block = { prefixes = [\"203.0.113.8\"] }",
                with_port(443),
                Impact::Untouched,
            ),
            (
                "blocked and trusted",
                "trust = [\"203.0.113.9\"]\nblock = { prefixes = [\"203.0.113.0/24\"] }",
                v4,
                Impact::Untouched,
            ),
            (
                "everybody",
                "trust = [\"0.0.0.0/0\"]",
                v4,
                Impact::Untouched,
            ),
            (
                "others are trusted",
                "trust = [\"203.0.113.8\", \"2001:db8::/32\"]",
                v4,
                continues(v4, &["ssh", "all"]),
            ),
        ];
        for (name, before, connection, expected) in rows {
            for keep in [true, false] {
                let text = format!("{before}\n[established]\nkeep = {keep}\n{DOORS}");
                let settings = config::parse(&text, "test.toml")
                    .unwrap_or_else(|problems| panic!("{name}: {problems}"))
                    .settings;
                let expected = match expected.clone() {
                    Impact::Continues(needs) if !keep => Impact::Cut(needs),
                    same @ (Impact::Continues(_)
                    | Impact::Untouched
                    | Impact::Cut(_)
                    | Impact::Blocked(..)) => same,
                };
                assert_eq!(
                    impact(connection, &settings),
                    expected,
                    "{name}, keep = {keep}"
                );
            }
        }
    }

    #[test]
    fn warnings_name_the_cure() {
        let needs = |doors: &[&str]| Access {
            connection: between("203.0.113.9:50022", "192.0.2.2:22"),
            doors: doors.iter().map(ToString::to_string).collect(),
        };
        let rows: [(&str, Impact, &str); 4] = [
            (
                "continues",
                Impact::Continues(needs(&["ssh"])),
                "your SSH connection from 203.0.113.9 to tcp/22 continues, and a new one needs a knock \
                 at door \"ssh\"",
            ),
            (
                "two doors",
                Impact::Continues(needs(&["ssh", "all"])),
                "your SSH connection from 203.0.113.9 to tcp/22 continues, and a new one needs a knock \
                 at door \"ssh\" or \"all\"",
            ),
            (
                "no door",
                Impact::Continues(needs(&[])),
                "your SSH connection from 203.0.113.9 to tcp/22 continues, and no door opens tcp/22 for \
                 another one: add one, or trust = [\"203.0.113.9\"]",
            ),
            (
                "cut",
                Impact::Cut(needs(&["ssh"])),
                "your SSH connection from 203.0.113.9 to tcp/22 will be cut, because of [established] \
                 keep = false, and a new one needs a knock at door \"ssh\"; to keep it, set keep = \
                 true, or trust = [\"203.0.113.9\"]",
            ),
        ];
        for (name, impact, expected) in rows {
            assert_eq!(impact.warning().as_deref(), Some(expected), "{name}");
        }
        assert_eq!(Impact::Untouched.warning(), None);
    }
}
