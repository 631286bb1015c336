//! The settings of a configuration: every name resolved, every default filled in, every value in
//! range.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use knock_common::{GrantPrefix, layout::FlagClass, packet::Protocol};
use knock_sequence::{Knock, PortSet, Ports, duration};

use super::fleet::Fleet;
use super::spa::Fwknop;
use super::table_sizes::Uses;
pub use super::{
    otp::{Otp, SecretOrigin},
    prefix::Prefix,
    spa::{Otherwise, Spa, User},
    table_sizes::Limits,
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
    /// The block list: sources whose packets are all dropped.
    pub block: Vec<Prefix>,
    /// Strict mode: whether new connections to unused ports are wrong knocks.
    pub strict: bool,
    /// The exempt ports.
    pub exempt: Exempt,
    /// The treatment of connections when their grant ends.
    pub established: Established,
    /// The lockout, if there is one.
    pub lockout: Option<Lockout>,
    /// The sizes of the tables of the kernel side.
    pub limits: Limits,
    /// The decoys, which look like knock ports.
    pub decoys: Decoys,
    /// The users who may control the daemon besides root.
    pub control: Control,
    /// The address of the next-line server, if there is one.
    pub next_line: Option<SocketAddr>,
    /// The address of the server of metrics, if there is one.
    pub metrics: Option<SocketAddr>,
    /// The group of hosts that this one opens doors with, if there is one.
    pub fleet: Option<Fleet>,
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

    /// Returns whether the hosts of the group open a door together: it gives grants for any address of a host, and is
    /// not kept to this host.
    pub fn is_shared(&self, door: &Door) -> bool {
        let is_kept = door.group.as_deref().is_some_and(str::is_empty);
        let gives = matches!(door.effect, Effect::Open(_));
        self.fleet.is_some() && gives && !is_kept && door.target.is_none()
    }

    /// Returns the users that may open a door.
    pub fn users_of(&self, door: &Door) -> impl Iterator<Item = &User> {
        let may = |user: &&User| user.doors.contains(&door.name);
        self.users.iter().filter(may)
    }

    /// Returns how SPA packets are received; none if there is no user to send them.
    pub fn spa(&self) -> Option<&Spa> {
        self.spa.as_ref().filter(|_| !self.users.is_empty())
    }

    /// Returns whether a user has a key of this project's format, which needs the host's key.
    pub fn has_user_keys(&self) -> bool {
        self.users.iter().any(|user| !user.keys.is_empty())
    }

    /// Returns which tables the configuration uses besides those that every one needs.
    pub fn uses(&self) -> Uses {
        Uses {
            lockouts: self.lockout.is_some(),
            users: self.spa().is_some(),
        }
    }

    /// Returns the users with a client of fwknop.
    pub fn fwknop_users(&self) -> impl Iterator<Item = (usize, &User, &Fwknop)> {
        let users = self.users.iter().enumerate();
        users.filter_map(|(index, user)| Some((index, user, user.fwknop.as_ref()?)))
    }

    /// Returns the UDP ports to which SPA packets are sent; none without users.
    pub fn spa_ports(&self) -> &[Ports] {
        self.spa().map_or(&[], |spa| &spa.ports)
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
    /// In the driver, or else at traffic control (generic before Linux 6.6).
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// Generic: behind the driver, on socket buffers.
    Skb,
    /// At traffic control ingress.
    Tc,
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
    /// The prefixes that a grant covers.
    pub grant_prefix: GrantPrefix,
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
    /// The prefixes from which it can be used; from everywhere if there are none.
    pub from: Vec<Prefix>,
    /// The group of hosts that open it together; empty for this host alone, none for the group of `[fleet]`.
    pub group: Option<String>,
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
pub struct AcceptedSequence {
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
pub type Sequences = BTreeMap<usize, Vec<AcceptedSequence>>;

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
