//! Keys of a host and of a client, packets, and what they open.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use knock_sequence::spa::{Channel, DoorAction, DoorId, PORT, PrivateKey, Request};
use knock_tests::{
    daemon::{self, Daemon},
    namespace::Namespace,
    net::{Family, Net},
    source::Source,
    ssh::SSH,
    wait,
};
use knock_user::kernel::pins::replay_directory;
use tempfile::TempDir;

const STAMPS: &str = "spa-stamps.json";

pub(crate) const DOORS: &str = "
[[door]]
name = \"ssh\"
open = [\"tcp/22\"]
[[door]]
name = \"web\"
knock = [\"tcp/7000\", \"udp/8000\", \"tcp/6000\"]
open = [\"tcp/80\"]
";

/// A host with a key, and a client.
pub(crate) struct KeyedHost {
    directory: TempDir,
    pub(crate) host: PrivateKey,
    pub(crate) client: PrivateKey,
}

impl KeyedHost {
    pub(crate) fn new() -> Self {
        let [host, client] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let keys = Self {
            directory: tempfile::tempdir().unwrap(),
            host,
            client,
        };
        keys.write("host.key", &keys.host);
        keys
    }

    pub(crate) fn write(&self, name: &str, key: &PrivateKey) {
        fs::write(self.path(name), key.line().as_str()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn channel(&self) -> Channel {
        Channel::new(&self.client, self.host.public()).unwrap()
    }

    /// Returns a configuration in which a user with these keys may open the door `ssh`.
    pub(crate) fn config(&self, user: &str, keys: &str) -> String {
        format!(
            "[spa]\nkey = {:?}\nwindow = \"10s\"\n{}{DOORS}",
            self.path("host.key"),
            user_table(user, keys)
        )
    }

    pub(crate) fn text(&self) -> String {
        format!("\"{}\"", self.client.public())
    }
}

pub(crate) fn user_table(name: &str, keys: &str) -> String {
    format!("[[user]]\nname = \"{name}\"\nkeys = [{keys}]\ndoors = [\"ssh\", \"web\"]\n")
}

pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

/// Returns a new packet that opens a door for the source that it comes from.
pub(crate) fn packet(channel: &Channel, door: DoorId) -> Vec<u8> {
    let request = Request {
        stamp: unix_ns(),
        source: None,
        door,
        seconds: 0,
        action: DoorAction::Open,
        answer: false,
    };
    channel.seal(&request).to_vec()
}

pub(crate) fn send(source: &Source<'_>, packet: &[u8]) {
    let sent = source.namespace.enter(|| {
        let socket = UdpSocket::bind((source.from, 0))?;
        socket.send_to(packet, (source.to, PORT))
    });
    assert_eq!(sent.unwrap(), packet.len());
}

/// Sends a new packet, which opens the door `ssh`.
pub(crate) fn gets_in(net: &Net, channel: &Channel, row: &str) -> Vec<u8> {
    let source = net.new_source(Family::V4);
    let packet = packet(channel, DoorId::FIRST);
    send(&source, &packet);
    drop(source.finds_open(SSH, row));
    packet
}

/// Checks that a packet opens nothing, for any source.
pub(crate) fn is_refused(net: &Net, packet: &[u8], row: &str) {
    for family in Family::ALL {
        let source = net.new_source(family);
        send(&source, packet);
        source.finds_closed(SSH, row);
    }
}

pub(crate) fn start(net: &Net, config: &str) -> Daemon {
    Daemon::start(&net.server, config)
}

pub(crate) fn stamps(server: &Namespace) -> PathBuf {
    Path::new(&server.state()).join(STAMPS)
}

/// Waits until the file has a stamp of the client's key.
pub(crate) fn is_on_disk(net: &Net, keys: &KeyedHost) {
    let id = format!("\"{}\":", keys.client.public().id().number());
    wait::until("the stamp is in the file", || {
        fs::read_to_string(stamps(&net.server)).is_ok_and(|text| text.contains(&id))
    });
}

/// Loses the replay caches, as a reboot does.
pub(crate) fn lose_pins() {
    fs::remove_dir_all(replay_directory()).unwrap();
}

/// Ends the boot of a host whose daemon was killed: the file has what the daemon wrote until then.
pub(crate) fn reboot_uncleanly(server: &Namespace) {
    let path = stamps(server);
    let text = fs::read_to_string(&path).unwrap();
    daemon::detach(server);
    lose_pins();
    fs::write(&path, text).unwrap();
}
