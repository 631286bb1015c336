//! A host of a group: knock-user with its knock-fleet, and a server behind a door.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use knock_tests::{
    binary::binaries,
    daemon::{self, Daemon},
    namespace::{Namespace, run},
    server::Server,
    wait,
};
use serde_json::{Value, json};

use crate::{
    engine::{Engine, urls},
    network::{LINK, Network},
};

/// The port behind the door.
pub(crate) const SSH: u16 = 22;
/// Its sequence.
pub(crate) const KNOCKS: &str = "tcp/7000 udp/8000 tcp/6000";

/// A host, whose daemon may be killed and started again.
pub(crate) struct Host {
    pub(crate) octet: u8,
    pub(crate) namespace: Namespace,
    pub(crate) config: String,
    pub(crate) daemon: Option<Daemon>,
    _server: Server,
}

/// The settings of a host.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) group: &'a str,
    pub(crate) seal: &'a Path,
    pub(crate) more: &'a str,
}

impl Host {
    /// Starts a host and waits until it follows its group.
    #[track_caller]
    pub(crate) fn start(
        network: &Network,
        engine: &Engine,
        octet: u8,
        settings: Settings<'_>,
    ) -> Self {
        let mut host = Self::prepare(network, engine, octet, settings);
        host.begin();
        host.wait_until_in_sync();
        host
    }

    /// Makes a host without starting it.
    pub(crate) fn prepare(
        network: &Network,
        engine: &Engine,
        octet: u8,
        settings: Settings<'_>,
    ) -> Self {
        let namespace = network.add("host", octet);
        let Settings { group, seal, more } = settings;
        let file = |name: &str| engine.file(name).display().to_string();
        let (ca, cert, key, urls) = (file("ca.pem"), file("all.pem"), file("all.key"), urls());
        let knocks: Vec<_> = KNOCKS
            .split(' ')
            .map(|knock| format!("\"{knock}\""))
            .collect();
        let config = format!(
            "[fleet]\nservers = [{urls}]\ngroup = \"{group}\"\nhost = \"host-{octet}\"\nca = \"{ca}\"\n\
             cert = \"{cert}\"\nkey = \"{key}\"\nseal = [\"{}\"]\ngrace = \"3s\"\n{more}\n\
             [[door]]\nname = \"ssh\"\nknock = [{}]\nopen = [\"tcp/{SSH}\"]\nopen_for = \"1h\"\n\
             [[door]]\nname = \"shut\"\nknock = [\"tcp/7001\", \"udp/8001\", \"tcp/6001\"]\nclose = [\"tcp/{SSH}\"]\n",
            seal.display(),
            knocks.join(", "),
        );
        Self {
            octet,
            _server: Server::tcp(&namespace, &[SSH]),
            namespace,
            config,
            daemon: None,
        }
    }

    /// Starts its daemon, which protects.
    #[track_caller]
    pub(crate) fn begin(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        let arguments = ["--iface", LINK, "--on-exit", "keep"];
        self.daemon = Some(Daemon::start_with(
            &self.namespace,
            &self.config,
            &arguments,
        ));
    }

    #[track_caller]
    pub(crate) fn daemon(&self) -> &Daemon {
        match &self.daemon {
            Some(daemon) => daemon,
            None => panic!("host-{} does not run", self.octet),
        }
    }

    /// Asks its daemon, which answers with an object.
    #[track_caller]
    pub(crate) fn ask(&self, words: &str) -> Value {
        let mut arguments: Vec<_> = words.split(' ').collect();
        arguments.push("--json");
        let (code, answer) = daemon::ask(&self.namespace, &arguments);
        assert!(code == Some(0) || words == "status", "{words}: {answer}");
        serde_json::from_str(answer.trim())
            .unwrap_or_else(|error| panic!("{words}: {error}: {answer}"))
    }

    /// Returns whether it follows its group.
    pub(crate) fn is_in_sync(&self) -> bool {
        self.ask("fleet status")["in_sync"] == json!(true)
    }

    #[track_caller]
    pub(crate) fn wait_until_in_sync(&self) {
        let is_there = wait::poll(wait::PATIENCE, || self.is_in_sync().then_some(()));
        assert!(
            is_there.is_some(),
            "host-{} does not follow its group: {}\n{}",
            self.octet,
            self.ask("fleet status"),
            self.daemon().process().printed()
        );
    }

    #[track_caller]
    pub(crate) fn wait_until_cut_off(&self) {
        let what = format!("host-{} is cut off", self.octet);
        wait::until(&what, || !self.is_in_sync());
    }

    /// Returns the process ids of its knock-fleet: one, or none while it is started again.
    pub(crate) fn children(&self) -> Vec<i32> {
        let parent = self.daemon().process().id();
        let list = format!("/proc/{parent}/task/{parent}/children");
        let list = fs::read_to_string(list).unwrap_or_default();
        let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter(|pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "knock-fleet")
        })
        .collect()
    }
}

/// Draws the key of a group.
pub(crate) fn new_key(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    let mut command = Command::new(&binaries().user);
    command.args(["fleet", "key", "--out"]).arg(&path);
    run(&mut command);
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    path
}
