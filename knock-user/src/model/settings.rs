//! The settings of a configuration: every name resolved, every default filled in, every value in
//! range.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use knock_common::{Address, layout::FlagClass, packet::Protocol};
use knock_sequence::{Knock, PortSet, Ports, duration};

pub use super::{
    otp::{Origin, Otp},
    spa::{Otherwise, Spa, User},
};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Names of the interfaces, if the file names any.
    pub interfaces: Vec<String>,
    /// The attach mode.
    pub mode: Mode,
    /// Ports that are protected even if no door opens them.
    pub protect: Vec<Ports>,
    /// The allow list: sources that do not have to knock.
    pub trust: Vec<Prefix>,
    /// Strict mode: whether new connections to unused ports are wrong knocks.
    pub strict: bool,
    /// The exempt ports.
    pub exempt: Exempt,
    /// What happens to connections when their grant ends.
    pub established: Established,
    /// The lockout, if there is one.
    pub lockout: Option<Lockout>,
    /// The decoys, which look like knock ports.
    pub decoys: Decoys,
    /// The users who may control the daemon besides root.
    pub control: Control,
    /// The address of the next-line server, if there is one.
    pub next_line: Option<SocketAddr>,
    /// The address of the server of metrics, if there is one.
    pub metrics: Option<SocketAddr>,
    /// How SPA packets are received; present if the file has `[spa]` or a user.
    pub spa: Option<Spa>,
    /// The users, in the order of the file.
    pub users: Vec<User>,
    /// The doors, in the order of the file.
    pub doors: Vec<Door>,
}

impl Settings {
    /// Returns whether any door verifies knocks with handshakes; decoys then reply, too.
    pub fn has_handshakes(&self) -> bool {
        let mut doors = self.doors.iter();
        doors.any(|door| door.verify == Verify::Handshake)
    }

    /// Returns the ports that need a grant.
    pub fn protected(&self) -> PortSet {
        let opened = self.doors.iter().flat_map(Door::opened);
        PortSet::new(self.protect.iter().chain(opened).copied())
    }
}

/// How the program is attached to an interface.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    clap::ValueEnum,
    serde::Deserialize,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver, or else generic, with a warning.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// Generic: behind the driver, on socket buffers.
    Skb,
}

/// An address prefix: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Prefix {
    /// The address; bits after the prefix are zero.
    pub address: IpAddr,
    /// Length in bits: at most 32 for IPv4, 128 for IPv6.
    pub bits: u8,
}

impl Prefix {
    /// Returns the prefix that contains only `address`.
    pub const fn of(address: IpAddr) -> Self {
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, bits }
    }

    /// Returns the prefix in the form of the maps: IPv4 is mapped, so it is 96 bits longer.
    pub fn mapped(self) -> (Address, u32) {
        let before = match self.address {
            IpAddr::V4(_) => 96,
            IpAddr::V6(_) => 0,
        };
        (self.address.into(), before + u32::from(self.bits))
    }

    /// Returns the prefix with all bits after it cleared.
    pub(crate) fn cleared(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, ..self }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::of(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

/// The exempt ports, which are never wrong knocks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Exempt {
    /// The ports on which this host listens.
    Listening,
    /// These.
    Listed(Vec<Ports>),
}

/// `[established]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Established {
    /// Whether connections outlive the grant that let them in.
    pub keep: bool,
    /// How long a TCP connection without packets is kept.
    pub idle: Duration,
    /// The same for UDP, which has no end of a connection.
    pub idle_udp: Duration,
}

impl Established {
    /// Returns how long a connection without packets is kept, in milliseconds, by index of the
    /// protocol.
    pub fn idle_ms(&self) -> [u64; 2] {
        [self.idle, self.idle_udp].map(duration::millis)
    }
}

/// `[lockout]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lockout {
    /// The number of failed attempts, at least 1.
    pub failures: u16,
    /// The duration of the lockout.
    pub duration: Duration,
    /// The sources that are locked out.
    pub scope: Scope,
}

/// The sources that a lockout applies to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The source that failed.
    #[default]
    Source,
    /// All sources.
    Global,
}

/// `[decoys]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decoys {
    /// This many TCP ports, drawn from a range when the configuration is compiled.
    Drawn {
        /// Their number; 0 for none.
        count: u16,
        /// The range.
        range: std::ops::RangeInclusive<u16>,
    },
    /// These.
    Listed(Vec<Ports>),
}

/// `[control]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Control {
    /// The group whose members may control the daemon, if any.
    pub group: Option<String>,
}

/// `[[door]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Door {
    /// Its name, unique in the file.
    pub name: String,
    /// Up to 128 knocks; none if `dynamic` is set, or if only users open the door.
    pub knock: Vec<Knock>,
    /// The source of its sequences, if they change.
    pub dynamic: Option<Dynamic>,
    /// The effect of the sequence.
    pub effect: Effect,
    /// How long a grant lasts.
    pub open_for: Duration,
    /// The longest grant that a user may ask for, at least `open_for`.
    pub open_for_max: Duration,
    /// The time limit from the first knock to the last.
    pub sequence_timeout: Duration,
    /// The time limit from one knock to the next, if any.
    pub step_timeout: Option<Duration>,
    /// The TCP flags of a knock.
    pub tcp_flags: FlagClass,
    /// The command to run when a source has opened the door.
    pub on_open: Option<Command>,
    /// The command to run when the grant has ended.
    pub on_close: Option<Command>,
    /// The target: the destination address of knocks and grants, if limited to one.
    pub target: Option<IpAddr>,
    /// The proof that the source address of a knock is not forged.
    pub verify: Verify,
    /// Whether a reply names the opened port to the client.
    pub reply: bool,
    /// Whether knocks pass to the network stack; only a door that runs commands alone has this.
    pub knock_pass: bool,
}

/// The proof that the source address of a knock is not forged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Verify {
    /// No proof: a packet is a knock.
    #[default]
    Packet,
    /// A TCP handshake.
    Handshake,
}

impl Verify {
    /// Both values, with their words in the file.
    pub const WORDS: [(&str, Self); 2] = [("packet", Self::Packet), ("handshake", Self::Handshake)];

    /// Returns the word in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Handshake => "handshake",
        }
    }
}

impl Door {
    /// Returns the number of knocks, if it is always the same.
    pub fn length(&self) -> Option<usize> {
        match &self.dynamic {
            None => Some(self.knock.len()),
            Some(Dynamic::OneTime(_)) => None,
            Some(Dynamic::Otp(otp)) => Some(otp.sequences.length()),
        }
    }

    /// Returns whether the door has a sequence of knocks, fixed or changing.
    pub fn has_sequence(&self) -> bool {
        !self.knock.is_empty() || self.dynamic.is_some()
    }

    /// Returns the first TCP port that the door opens, which a reply names.
    pub fn first_tcp(&self) -> Option<u16> {
        let tcp = |ports: &&Ports| ports.protocol == Protocol::Tcp;
        self.opened().iter().find(tcp).map(|ports| ports.first)
    }

    /// Returns the ports that the door opens.
    pub fn opened(&self) -> &[Ports] {
        match &self.effect {
            Effect::Open(ports) => ports,
            Effect::Close(_) => &[],
        }
    }

    /// Returns the ports that the door closes.
    pub fn closed(&self) -> &[Ports] {
        match &self.effect {
            Effect::Open(_) => &[],
            Effect::Close(ports) => ports,
        }
    }
}

/// The source of changing sequences of a door.
#[derive(Clone, Debug, PartialEq)]
pub enum Dynamic {
    /// A file of one-time sequences.
    OneTime(OneTime),
    /// The current period and a secret.
    Otp(Otp),
}

/// `one_time`, `lookahead`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OneTime {
    /// The file with the sequences.
    pub file: PathBuf,
    /// How many of them are accepted at a time, at least 1.
    pub lookahead: u16,
}

/// A sequence that is accepted now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sequence {
    /// At least one knock.
    pub knocks: Vec<Knock>,
    /// Its number among the sequences of its door, from 1: each can be used once.
    pub sequence_id: u32,
    /// The number under which its use is recorded: the same for all doors that have the same secret
    /// or file.
    pub replay_domain: u32,
    /// Until when it is accepted, in milliseconds since boot.
    pub good_until_ms: u64,
    /// The protocols of the knocks that follow and depend on the source.
    pub per_source: Vec<Protocol>,
}

/// The current sequences of doors with changing ones, by the door's index.
pub type Sequences = BTreeMap<usize, Vec<Sequence>>;

/// The effect of a door's sequence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Opens ports; none if the door only runs commands.
    Open(Vec<Ports>),
    /// Ends grants for ports.
    Close(Vec<Ports>),
}

/// A command to run, without a shell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, in which `{source}`, `{door}`, `{port}` and `{family}` are replaced.
    pub arguments: Vec<String>,
    /// How long it may run.
    pub timeout: Duration,
}
