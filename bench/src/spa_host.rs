//! Servers that admit clients after one packet: `knock-user` and fwknopd; right packets for them, and others.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use knock_common::{
    Address,
    hmac_sha256::HmacKey,
    siphash::SipKey,
    spa::{
        layout::{Gate, SpaDoorId, SpaKeyId},
        seal::{Content, Sealer},
    },
};
use knock_sequence::spa::{Channel, DoorAction, DoorId, GateKeys, PORT, PrivateKey, Request};
use knock_tests::{
    daemon::Daemon,
    net::{Family, Net},
    process::Process,
    source::Source,
    wire::{Wire, datagram, whole},
};
use tempfile::TempDir;

use crate::{
    fwknop::{self, DigestCache, FwknopKeys, Fwknopd, FwknopdMode},
    receiver::{ON_THE_LINK, let_clients_in},
};

/// The port of the door.
pub const SSH: u16 = 22;
/// The pause between a packet and the connection.
pub const PAUSE: Duration = Duration::from_millis(5);
/// The time limit of an attempt to connect, in which its SYN is sent once.
pub const ATTEMPT: Duration = Duration::from_millis(100);
/// How far in front of the clock the stamp of a forgery is: in the window for as long as a flood lasts.
const AHEAD: Duration = Duration::from_secs(20);

/// The format of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// That of `knock-client`.
    Knock,
    /// That of fwknop.
    Fwknop,
}

/// The packets of a flood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Random octets.
    Noise,
    /// A packet that opened a door before.
    Copy(Format),
    /// A packet that was made without a client's key, but with the host's public key.
    Forgery(Format),
}

/// A server that admits clients after one packet.
pub struct Host<'n> {
    net: &'n Net,
    running: Running,
}

enum Running {
    KnockUser {
        daemon: Box<Daemon>,
        keys: Keys,
        fwknop: FwknopKeys,
    },
    Fwknopd(Fwknopd),
}

impl<'n> Host<'n> {
    /// Starts fwknopd in a mode, or `knock-user`.
    ///
    /// # Errors
    /// Its files can't be written.
    pub fn start(net: &'n Net, peer: Option<FwknopdMode>) -> Result<Self> {
        let running = match peer {
            Some(mode) => {
                let_clients_in(net);
                Running::Fwknopd(fwknop::start(net, mode, DigestCache::File)?)
            }
            None => {
                let (keys, fwknop) = (Keys::new()?, FwknopKeys::new()?);
                let config = keys.config(&fwknop);
                Running::KnockUser {
                    daemon: Daemon::start_with(&net.server, &config, ON_THE_LINK).into(),
                    keys,
                    fwknop,
                }
            }
        };
        Ok(Self { net, running })
    }

    /// Returns its process.
    pub fn process(&self) -> &Process {
        match &self.running {
            Running::KnockUser { daemon, .. } => daemon.process(),
            Running::Fwknopd(fwknopd) => &fwknopd.process,
        }
    }

    /// Returns a packet that opens the door for a source.
    ///
    /// # Errors
    /// The packet can't be made.
    pub fn packet(&self, source: &Source<'_>, format: Format) -> Result<Vec<u8>> {
        let fwknop = match (&self.running, format) {
            (Running::KnockUser { keys, .. }, Format::Knock) => return keys.packet(),
            (Running::KnockUser { fwknop, .. }, Format::Fwknop) => fwknop,
            (Running::Fwknopd(fwknopd), _) => &fwknopd.keys,
        };
        fwknop.packet(&self.net.client, &source.name())
    }

    /// Returns the packet that a flood repeats.
    ///
    /// # Errors
    /// The packet can't be made, or opens nothing before it is copied.
    pub fn flood(&self, wire: &Wire, kind: Kind, patience: Duration) -> Result<Vec<u8>> {
        match (kind, &self.running) {
            (Kind::Noise, _) => Ok(rand::random::<[u8; 128]>().to_vec()),
            (Kind::Copy(format), _) => {
                let source = self.net.new_source(Family::V4);
                let packet = self.packet(&source, format)?;
                ensure!(
                    gets_in(wire, &source, &packet, patience),
                    "the packet to copy opens nothing"
                );
                Ok(packet)
            }
            (Kind::Forgery(Format::Knock), Running::KnockUser { keys, .. }) => keys.forgery(),
            (Kind::Forgery(_), _) => {
                let source = self.net.new_source(Family::V4);
                FwknopKeys::new()?.packet(&self.net.client, &source.name())
            }
        }
    }
}

/// The keys of a host with `knock-user` and of its client.
struct Keys {
    directory: TempDir,
    host: PrivateKey,
    client: PrivateKey,
}

impl Keys {
    fn new() -> Result<Self> {
        let keys = Self {
            directory: tempfile::tempdir().context("making a directory for keys")?,
            host: PrivateKey::generate()?,
            client: PrivateKey::generate()?,
        };
        fs::write(keys.file(), keys.host.line().as_str()).context("writing the host's key")?;
        Ok(keys)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("host.key")
    }

    /// Returns a configuration with a user for each format.
    fn config(&self, fwknop: &FwknopKeys) -> String {
        format!(
            "[spa]\nkey = {:?}\n[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n[[user]]\nname = \"alice\"\n\
             doors = [\"ssh\"]\nkeys = [\"{}\"]\n[[user]]\nname = \"bob\"\ndoors = [\"ssh\"]\nfwknop = {:?}\n",
            self.file(),
            self.client.public(),
            fwknop.file()
        )
    }

    /// Returns a packet for the source that it comes from.
    fn packet(&self) -> Result<Vec<u8>> {
        let request = Request {
            stamp: unix_ns(Duration::ZERO)?,
            source: None,
            door: DoorId::FIRST,
            seconds: 0,
            action: DoorAction::Open,
            answer: false,
        };
        Ok(Channel::new(&self.client, self.host.public())?
            .seal(&request)
            .to_vec())
    }

    /// Returns a packet with the client's id and a current stamp, by somebody who knows the host's public key: it is
    /// refused only when its HMAC has been computed.
    fn forgery(&self) -> Result<Vec<u8>> {
        let gate = GateKeys::of_host(self.host.public());
        let forger = Sealer {
            gate: Gate {
                check: sip_key(*gate.check),
                mask: sip_key(*gate.mask),
                is_used: 1,
            },
            mac: HmacKey::new(b"a guess"),
            cipher: HmacKey::new(b"another"),
            id: SpaKeyId(self.client.public().id().number()),
        };
        let content = Content {
            stamp: unix_ns(AHEAD)?,
            source: Address::ANY,
            door: SpaDoorId::FIRST,
            seconds: 0,
            action: 0,
            reserved: [0; 3],
        };
        Ok(forger.seal(&content).to_vec())
    }
}

fn unix_ns(ahead: Duration) -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)? + ahead;
    Ok(u64::try_from(since.as_nanos())?)
}

fn sip_key(octets: [u8; 16]) -> SipKey {
    let both = u128::from_le_bytes(octets);
    [both as u64, (both >> 64) as u64]
}

/// Sends a packet once, and returns whether the source can connect behind it.
pub fn gets_in(wire: &Wire, source: &Source<'_>, packet: &[u8], patience: Duration) -> bool {
    let path = source.path();
    // A full link loses packets, as a wire would.
    let _lost = wire.try_send(&whole(path, &datagram(path, 40_000, PORT, packet)));
    // The pace of a client; it waits for no condition.
    thread::sleep(PAUSE);
    let deadline = Instant::now() + patience;
    let mut connected = false;
    while !connected && Instant::now() < deadline {
        connected = source.connect(SSH, ATTEMPT).is_ok();
    }
    connected
}
