//! What a configuration means: every name resolved, every default filled in, every value in range.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use knock_common::{Address, layout::FlagClass, packet::Protocol};
use knock_sequence::{Knock, Ports, duration};

pub use super::otp::{Origin, Otp};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Names of the interfaces, if the file names any.
    pub interfaces: Vec<String>,
    /// How the program is attached.
    pub mode: Mode,
    /// Ports that are closed even if no door opens them.
    pub protect: Vec<Ports>,
    /// Sources that need not knock.
    pub trust: Vec<Prefix>,
    /// Whether new connections to other ports are wrong knocks.
    pub strict: bool,
    /// Ports that are never wrong knocks.
    pub exempt: Exempt,
    /// What happens to connections when their grant ends.
    pub established: Established,
    /// After how many failed attempts a source is not listened to, if at all.
    pub lockout: Option<Lockout>,
    /// Ports that look like knock ports.
    pub decoys: Decoys,
    /// Who may control the daemon besides root.
    pub control: Control,
    /// Where clients are told which line of a one-time file is next, if anywhere.
    pub next_line: Option<SocketAddr>,
    /// The doors, in the order of the file.
    pub doors: Vec<Door>,
}

impl Settings {
    /// Whether some door's knocks are proved by handshakes; then decoys answer, too.
    pub fn has_handshakes(&self) -> bool {
        let mut doors = self.doors.iter();
        doors.any(|door| door.verify == Verify::Handshake)
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
    /// The prefix that holds `address` and nothing else.
    pub const fn of(address: IpAddr) -> Self {
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, bits }
    }

    /// The prefix as the maps have it: IPv4 in mapped form, so 96 bits longer.
    pub fn mapped(self) -> (Address, u32) {
        let before = match self.address {
            IpAddr::V4(_) => 96,
            IpAddr::V6(_) => 0,
        };
        (self.address.into(), before + u32::from(self.bits))
    }

    /// The prefix of the same length with the bits after it cleared.
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

/// Ports that are never wrong knocks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Exempt {
    /// Those on which this host listens when the configuration is loaded.
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
    /// The same for UDP, where nothing says that a connection has ended.
    pub idle_udp: Duration,
}

impl Established {
    /// How long a connection without packets is kept, in milliseconds, by number of the protocol.
    pub fn idle_ms(&self) -> [u64; 2] {
        [self.idle, self.idle_udp].map(duration::millis)
    }
}

/// `[lockout]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lockout {
    /// Failed attempts, at least 1.
    pub failures: u16,
    /// How long the source is not listened to.
    pub duration: Duration,
    /// Who is not listened to.
    pub scope: Scope,
}

/// Who a lockout is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The source that failed.
    #[default]
    Source,
    /// Everybody.
    Global,
}

/// `[decoys]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decoys {
    /// This many TCP ports, drawn from a range when the configuration is compiled.
    Drawn {
        /// How many; 0 for none.
        count: u16,
        /// From where.
        range: std::ops::RangeInclusive<u16>,
    },
    /// These.
    Listed(Vec<Ports>),
}

/// `[control]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Control {
    /// The group whose members may, if one may.
    pub group: Option<String>,
}

/// `[[door]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Door {
    /// Its name, unique in the file.
    pub name: String,
    /// 1 to 128 knocks; none if `dynamic` says what they are.
    pub knock: Vec<Knock>,
    /// Where its sequences come from, if they are not always the same.
    pub dynamic: Option<Dynamic>,
    /// What the sequence does.
    pub effect: Effect,
    /// How long a grant lasts.
    pub open_for: Duration,
    /// First to last knock.
    pub sequence_timeout: Duration,
    /// Knock to knock, if limited.
    pub step_timeout: Option<Duration>,
    /// What makes a TCP packet a knock.
    pub tcp_flags: FlagClass,
    /// Run when a source has got through.
    pub on_open: Option<Command>,
    /// Run when its grant has ended.
    pub on_close: Option<Command>,
    /// The destination address that knocks and grants are for, if not any.
    pub target: Option<IpAddr>,
    /// What shows that a knock's source address is not forged.
    pub verify: Verify,
    /// Whether the knocker is told the opened port.
    pub reply: bool,
    /// Whether knocks go on to the network stack; only a door that just runs commands has this.
    pub knock_pass: bool,
}

/// What shows that a knock's source address is not forged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Verify {
    /// Nothing: a packet is a knock.
    #[default]
    Packet,
    /// A TCP handshake.
    Handshake,
}

impl Verify {
    /// Both, with their words.
    pub const WORDS: [(&str, Self); 2] = [("packet", Self::Packet), ("handshake", Self::Handshake)];

    /// The word in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Handshake => "handshake",
        }
    }
}

impl Door {
    /// How many knocks it has, if always as many.
    pub fn length(&self) -> Option<usize> {
        match &self.dynamic {
            None => Some(self.knock.len()),
            Some(Dynamic::OneTime(_)) => None,
            Some(Dynamic::Otp(otp)) => Some(otp.sequences.length()),
        }
    }

    /// The first TCP port that the door opens: the one that a knocker is told.
    pub fn first_tcp(&self) -> Option<u16> {
        let tcp = |ports: &&Ports| ports.protocol == Protocol::Tcp;
        self.opened().iter().find(tcp).map(|ports| ports.first)
    }

    /// The ports that the door opens.
    pub fn opened(&self) -> &[Ports] {
        match &self.effect {
            Effect::Open(ports) => ports,
            Effect::Close(_) => &[],
        }
    }

    /// The ports that the door closes.
    pub fn closed(&self) -> &[Ports] {
        match &self.effect {
            Effect::Open(_) => &[],
            Effect::Close(ports) => ports,
        }
    }
}

/// Where the sequences of a door come from that change.
#[derive(Clone, Debug, PartialEq)]
pub enum Dynamic {
    /// A file with sequences that are good once each.
    OneTime(OneTime),
    /// The time, and a secret.
    Otp(Otp),
}

/// `one_time`, `lookahead`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OneTime {
    /// The file with the sequences.
    pub file: PathBuf,
    /// How many of them are listened to at a time, at least 1.
    pub lookahead: u16,
}

/// A sequence as it is now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sequence {
    /// At least one knock.
    pub knocks: Vec<Knock>,
    /// Which of its door's sequences it is, from 1: each is good once.
    pub sequence_id: u32,
    /// Under which number it is noted that it was used: the same for all doors that have the same
    /// secret or file.
    pub replay_domain: u32,
    /// When it ends to be good, in milliseconds since boot.
    pub good_until_ms: u64,
    /// The protocols of knocks that follow and depend on who knocks.
    pub per_source: Vec<Protocol>,
}

/// What a door's sequence does.
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
