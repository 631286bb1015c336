//! Three members of etcd, with TLS.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use knock_tests::{
    namespace::{Namespace, run},
    wait,
};
use tempfile::TempDir;

use crate::{
    host::Host,
    network::{Network, address},
};

/// The last octets of the members' addresses.
pub(crate) const MEMBERS: [u8; 3] = [11, 12, 13];

/// The members, which are killed when this is dropped.
pub(crate) struct Engine {
    namespaces: Vec<Namespace>,
    members: [Option<Child>; 3],
    /// Dropped last.
    directory: TempDir,
}

impl Engine {
    /// Starts three members and waits for a leader.
    pub(crate) fn new(network: &Network) -> Self {
        // A file system in memory: disks are not under test.
        let directory = TempDir::new_in("/run").unwrap();
        make_certificates(directory.path());
        let namespaces = MEMBERS.map(|octet| network.add("member", octet)).into();
        let mut engine = Self {
            namespaces,
            members: [None, None, None],
            directory,
        };
        for number in 0..3 {
            engine.start(number);
        }
        engine.leader();
        engine
    }

    /// Returns the path of `ca.pem`, `all.pem` or `all.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Cuts a host off from all members, in both directions, or joins it to them again.
    pub(crate) fn set_reachable(&self, host: &Host, is_reachable: bool) {
        let verb = if is_reachable { "del" } else { "add" };
        for (member, octet) in self.namespaces.iter().zip(MEMBERS) {
            let route = |to| format!("route {verb} blackhole {}/32", address(to));
            host.namespace.ip(&route(octet));
            member.ip(&route(host.octet));
        }
    }

    /// Starts a member.
    pub(crate) fn start(&mut self, number: usize) {
        assert!(self.members[number].is_none(), "member {number} runs");
        let directory = self.directory.path();
        let log = directory.join(format!("log-{number}"));
        let log = File::options().create(true).append(true).open(log);
        let peers: Vec<_> = (0..3)
            .map(|number| format!("s{number}={}", url(number, 2380)))
            .collect();
        let mut command = Command::new("etcd");
        command.args(["--logger", "zap", "--log-level", "warn"]);
        command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
        command.args(["--client-cert-auth", "--peer-client-cert-auth"]);
        let path = |name: &str| directory.join(name).display().to_string();
        for (option, value) in [
            ("--name", format!("s{number}")),
            ("--data-dir", path(&format!("data-{number}"))),
            ("--initial-cluster", peers.join(",")),
            ("--listen-client-urls", url(number, 2379)),
            ("--advertise-client-urls", url(number, 2379)),
            ("--listen-peer-urls", url(number, 2380)),
            ("--initial-advertise-peer-urls", url(number, 2380)),
            ("--trusted-ca-file", path("ca.pem")),
            ("--cert-file", path("all.pem")),
            ("--key-file", path("all.key")),
            ("--peer-trusted-ca-file", path("ca.pem")),
            ("--peer-cert-file", path("all.pem")),
            ("--peer-key-file", path("all.key")),
        ] {
            command.args([option, &value]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.unwrap());
        let started = self.namespaces[number].enter(|| command.spawn());
        self.members[number] = Some(started.unwrap());
    }

    /// Kills a member at once.
    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut member) = self.members[number].take() {
            member.kill().unwrap();
            member.wait().unwrap();
        }
    }

    /// Waits until there is a leader; returns its number.
    pub(crate) fn leader(&self) -> usize {
        let found = wait::poll(wait::PATIENCE, || {
            (0..3).find(|&number| {
                self.members[number].is_some() && self.etcdctl(number, STATUS).contains("true")
            })
        });
        found.unwrap_or_else(|| panic!("no member leads"))
    }

    /// Runs etcdctl at a member; returns what it prints.
    fn etcdctl(&self, number: usize, words: &[&str]) -> String {
        let file = |name: &str| self.file(name).display().to_string();
        let url = url(number, 2379);
        let (ca, cert, key) = (file("ca.pem"), file("all.pem"), file("all.key"));
        let mut arguments = vec!["ETCDCTL_API=3", "etcdctl", "--endpoints", &url];
        arguments.extend(["--cacert", &ca, "--cert", &cert, "--key", &key]);
        arguments.extend(words);
        let output = self.namespaces[number].try_run("env", &arguments);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the keys and values below a prefix, as text.
    pub(crate) fn records(&self, prefix: &str) -> String {
        self.etcdctl(self.leader(), &["get", "--prefix", prefix])
    }
}

/// Columns: URL, id, version, size, is leader.
const STATUS: &[&str] = &["endpoint", "status"];

impl Drop for Engine {
    fn drop(&mut self) {
        for number in 0..3 {
            self.kill(number);
        }
    }
}

/// Returns the URL of a member's clients (port 2379) or of its peers (2380).
fn url(number: usize, port: u16) -> String {
    format!("https://{}:{port}", address(MEMBERS[number]))
}

/// Returns the URLs for clients, as a list of TOML.
pub(crate) fn urls() -> String {
    let urls = (0..3).map(|number| format!("\"{}\"", url(number, 2379)));
    urls.collect::<Vec<_>>().join(", ")
}

/// Makes an authority, and a certificate for all members and hosts.
fn make_certificates(directory: &Path) {
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        command
            .current_dir(directory)
            .args(words.split_whitespace());
        run(&mut command);
    };
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 -days 2 -subj /CN=authority {KEY} -keyout ca.key -out ca.pem"
    ));
    let names = MEMBERS.map(|octet| format!("IP:{}", address(octet)));
    openssl(&format!(
        "req -new -subj /CN=all -addext subjectAltName={} {KEY} -keyout all.key -out all.csr",
        names.join(",")
    ));
    openssl(
        "x509 -req -in all.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out all.pem",
    );
}
