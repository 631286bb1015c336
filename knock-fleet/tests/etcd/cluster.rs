//! Three members of etcd, with TLS, and an administrator of them.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcd_client::{Channel, Client, Error, GetOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::{
    certificates::Authority,
    command::{run, until},
    network::Network,
};

/// The last octets of the members' addresses.
pub(crate) const MEMBERS: [u8; 3] = [11, 12, 13];

/// The cluster with its network.
pub(crate) struct Cluster {
    pub(crate) network: Network,
    pub(crate) authority: Authority,
    members: [Option<Child>; 3],
    runtime: Runtime,
    /// Dropped last.
    directory: TempDir,
}

impl Cluster {
    /// Starts three members, and makes namespaces for hosts with these last octets.
    pub(crate) fn new(hosts: &[u8]) -> Self {
        let octets: Vec<_> = MEMBERS.iter().chain(hosts).copied().collect();
        let network = Network::new(&octets);
        // A file system in memory, where there is one: disks are not under test.
        let directory = TempDir::new_in("/run").unwrap();
        let authority = Authority::new(directory.path(), "tls");
        let addresses: Vec<_> = MEMBERS
            .iter()
            .map(|octet| network.place(*octet).address)
            .collect();
        authority.sign("member", &addresses);
        for user in ["root", "web-1", "db-1"] {
            authority.sign(user, &[]);
        }
        let mut cluster = Self {
            network,
            authority,
            members: [None, None, None],
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            directory,
        };
        for number in 0..3 {
            cluster.start(number);
        }
        cluster.wait_for_leader();
        cluster
    }

    /// Returns the address of a member's clients.
    pub(crate) fn url(&self, number: usize) -> String {
        format!(
            "https://{}:2379",
            self.network.place(MEMBERS[number]).address
        )
    }

    /// Returns those of all members.
    pub(crate) fn urls(&self) -> Vec<String> {
        (0..3).map(|number| self.url(number)).collect()
    }

    fn peer(&self, number: usize) -> String {
        format!(
            "https://{}:2380",
            self.network.place(MEMBERS[number]).address
        )
    }

    fn data(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("data-{number}"))
    }

    fn peers(&self) -> String {
        let peers = (0..3).map(|number| format!("s{number}={}", self.peer(number)));
        peers.collect::<Vec<_>>().join(",")
    }

    /// Starts a member.
    pub(crate) fn start(&mut self, number: usize) {
        assert!(self.members[number].is_none(), "member {number} runs");
        let log = self.directory.path().join(format!("log-{number}"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let place = self.network.place(MEMBERS[number]);
        let mut command = Command::new("ip");
        command
            .args([
                "netns",
                "exec",
                &place.name,
                "etcd",
                "--log-level",
                "warn",
                "--logger",
                "zap",
            ])
            .args(["--name", &format!("s{number}")])
            .arg("--data-dir")
            .arg(self.data(number))
            .args([
                "--initial-cluster",
                &self.peers(),
                "--initial-cluster-state",
                "new",
            ])
            .args(["--client-cert-auth", "--peer-client-cert-auth"]);
        let (client, peer) = (self.url(number), self.peer(number));
        for (option, value) in [
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--trusted-ca-file", &self.authority.path("ca.pem")),
            ("--cert-file", &self.authority.path("member.pem")),
            ("--key-file", &self.authority.path("member.key")),
            ("--peer-trusted-ca-file", &self.authority.path("ca.pem")),
            ("--peer-cert-file", &self.authority.path("member.pem")),
            ("--peer-key-file", &self.authority.path("member.key")),
        ] {
            command.args([option, value]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.members[number] = Some(command.spawn().unwrap());
    }

    /// Kills a member at once.
    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut member) = self.members[number].take() {
            member.kill().unwrap();
            member.wait().unwrap();
        }
    }

    /// Returns a client of some members, as a user.
    pub(crate) fn client(&self, numbers: &[usize], user: &str) -> Client {
        let read = |file: &str| std::fs::read(self.authority.path(file)).unwrap();
        let identity =
            Identity::from_pem(read(&format!("{user}.pem")), read(&format!("{user}.key")));
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(identity);
        let endpoints = numbers.iter().map(|number| {
            let endpoint = Endpoint::from_shared(self.url(*number)).unwrap();
            let endpoint = endpoint.tls_config(tls.clone()).unwrap();
            endpoint
                .timeout(Duration::from_secs(5))
                .connect_timeout(Duration::from_secs(1))
        });
        let endpoints: Vec<_> = endpoints.collect();
        self.wait(async move {
            let channel = tonic::transport::Channel::balance_list(endpoints.into_iter());
            Client::from_channel(Channel::Tonic(channel), None).await
        })
        .unwrap()
    }

    /// Waits for a request.
    pub(crate) fn wait<T>(&self, request: impl Future<Output = T>) -> T {
        self.runtime.block_on(request)
    }

    /// Asks all members as the administrator until there is an answer.
    #[track_caller]
    pub(crate) fn admin<T, F>(&self, mut ask: impl FnMut(Client) -> F) -> T
    where
        F: Future<Output = Result<T, Error>>,
    {
        let running: Vec<_> = (0..3)
            .filter(|number| self.members[*number].is_some())
            .collect();
        let mut next = 0;
        until("an answer of etcd", || {
            next += 1;
            let client = self.client(&[running[next % running.len()]], "root");
            self.wait(ask(client)).ok()
        })
    }

    /// Puts a record; returns its revision.
    #[track_caller]
    pub(crate) fn put(&self, key: &str, value: &str) -> u64 {
        let answer = self.admin(|mut client| async move { client.put(key, value, None).await });
        u64::try_from(answer.header().unwrap().revision()).unwrap()
    }

    /// Returns all keys and values below a prefix.
    pub(crate) fn records(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let options = || GetOptions::new().with_prefix();
        let answer =
            self.admin(|mut client| async move { client.get(prefix, Some(options())).await });
        let records = answer.kvs().iter();
        records
            .map(|record| {
                (
                    String::from_utf8_lossy(record.key()).into_owned(),
                    record.value().to_vec(),
                )
            })
            .collect()
    }

    /// Waits until there is a leader; returns its number.
    pub(crate) fn wait_for_leader(&self) -> usize {
        until("a leader", || {
            (0..3)
                .filter(|number| self.members[*number].is_some())
                .find(|number| {
                    let mut client = self.client(&[*number], "root");
                    self.wait(client.status()).is_ok_and(|status| {
                        let id = status.header().map(etcd_client::ResponseHeader::member_id);
                        status.leader() != 0 && id == Some(status.leader())
                    })
                })
        })
    }

    /// Runs `etcdctl` as the administrator, against one member.
    #[track_caller]
    pub(crate) fn etcdctl(&self, words: &str) -> String {
        let mut arguments = vec!["ETCDCTL_API=3".to_owned(), "etcdctl".to_owned()];
        for (option, value) in [
            ("--endpoints", self.url(0)),
            ("--cacert", self.authority.path("ca.pem")),
            ("--cert", self.authority.path("root.pem")),
            ("--key", self.authority.path("root.key")),
        ] {
            arguments.extend([option.to_owned(), value]);
        }
        arguments.extend(words.split(' ').map(str::to_owned));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run("env", &arguments)
    }

    /// Gives users `web-1` and `db-1` a group each, and enables roles.
    pub(crate) fn enable_roles(&self) {
        for words in [
            "user add root --no-password",
            "role add root",
            "user grant-role root root",
            "role add web",
            "role grant-permission web --prefix=true readwrite /knock/1/web/",
            "user add web-1 --no-password",
            "user grant-role web-1 web",
            "role add db",
            "role grant-permission db --prefix=true readwrite /knock/1/db/",
            "user add db-1 --no-password",
            "user grant-role db-1 db",
            "auth enable",
        ] {
            self.etcdctl(words);
        }
    }

    /// Saves a backup of one member.
    pub(crate) fn back_up(&self) -> PathBuf {
        let path = self.directory.path().join("backup.db");
        self.etcdctl(&format!("snapshot save {}", path.display()));
        path
    }

    /// Ends all members and starts them again with the records of a backup.
    pub(crate) fn restore(&mut self, backup: &std::path::Path) {
        for number in 0..3 {
            self.kill(number);
            std::fs::remove_dir_all(self.data(number)).unwrap();
            run(
                "env",
                &[
                    "ETCDCTL_API=3",
                    "etcdctl",
                    "snapshot",
                    "restore",
                    &backup.display().to_string(),
                    "--name",
                    &format!("s{number}"),
                    "--initial-cluster",
                    &self.peers(),
                    "--initial-advertise-peer-urls",
                    &self.peer(number),
                    "--data-dir",
                    &self.data(number).display().to_string(),
                ],
            );
        }
        for number in 0..3 {
            self.start(number);
        }
        self.wait_for_leader();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in self.members.iter_mut().flatten() {
            let _ended = member.kill();
            let _status = member.wait();
        }
    }
}
