//! The command line.

use crate::completions::Completions;
use crate::destination::{self, Families, parse_source};
use crate::fwknop::ImportFwknop;
use crate::keygen::Keygen;
use crate::next_line::NextLineAddress;
use crate::otp::{self, Hidden, Period, Protocols};
use crate::profiles::ListProfiles;
use crate::reply::{ConnectTo, parse_connect_to, parse_tcp_port, parse_timeout};
use crate::report::ReportStyle;
use crate::share::{Add, Share};
use crate::spa::SpaOptions;
use crate::ssh_config::SshConfig;
use clap::{Args, Parser, Subcommand};
use knock_sequence::duration;
use knock_sequence::{KnockSpec, Protocol};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Knocks are tcp/PORT (a SYN) and udp/PORT (one byte). The forms of \
knockd's client work too: PORT (TCP), PORT:tcp and PORT:udp.

Without knocks, HOST names a profile in ~/.config/knock/config.toml.

Examples:
  knock-client example.org tcp/7000 udp/8000 tcp/9000
  knock-client example.org tcp/7000 udp/8000 tcp/9000 --then-connect 22 && ssh example.org
  knock-client fe80::1%eth0 udp/7000 udp/8000 --delay 20ms -v
  knock-client -6 example.org 7000 8000:udp 9000:tcp
  knock-client example.org --one-time ~/once --then-connect 22 --retries 2
  knock-client example.org --otp ~/secret --then-connect 22
  knock-client keygen
  knock-client example.org --spa knock1:D6poTt8oCXu3sLqfZfT2yW0sJDjPdwPGtzBmB0Cq4m8 --then-connect 22
  knock-client home
  knock-client home --keep -- ssh home
  knock-client ssh-config home >> ~/.ssh/config

Exit codes: 0 success (and connected, if asked to), 1 failure, 2 usage or configuration error";

// Headings of `--help`.
const KNOCKS: &str = "Knocks";
const ONE_TIME: &str = "One-time sequences";
const TIME: &str = "Time-based sequences";
const CONNECTION: &str = "Connection";
const KEEP: &str = "Keeping it open";
const ADDRESSES: &str = "Addresses";
const OUTPUT: &str = "Profiles and output";

/// Knock on the ports of a host, so that it opens another port for this machine
#[derive(Debug, Parser)]
#[command(
    name = "knock-client",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// The subcommand, if any.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The arguments for knocking.
    #[command(flatten)]
    pub args: KnockArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Knock, connect and relay standard input and output, for ssh's ProxyCommand
    ///
    /// In ~/.ssh/config: `ProxyCommand knock-client proxy %h %p`. The knocks come from the profile
    /// with this name or this host.
    Proxy(Box<Proxy>),

    /// Make this machine's key for single packet authorization, and print its public key
    ///
    /// The private key is written to a new file that only you can read. Add the printed line to a
    /// [[user]] in the configuration of each host that this machine may enter.
    Keygen(Keygen),

    /// List the profiles: names, hosts and what opens their doors, but no secrets
    Profiles(ListProfiles),

    /// Print the block for ~/.ssh/config that opens the door of a profile
    ///
    /// With ProxyCommand, ssh connects through this program, right after the last packet; with --exec, a Match opens
    /// the door and ssh connects by itself.
    SshConfig(SshConfig),

    /// Print a profile as a knock:// URI and a QR code, for another machine; secrets only with --with-secret
    Share(Share),

    /// Add the profile in a URI that `share` printed
    Add(Add),

    /// Print the script with which a shell completes options and the names of profiles
    Completions(Completions),

    /// Convert the stanzas of fwknop's client to profiles for hosts with knock-user
    ///
    /// This client sends no packets of fwknop: each profile needs the public key of its host, which
    /// `knock-user keygen` prints there. What has no equivalent becomes a comment; no key is printed.
    ImportFwknop(ImportFwknop),
}

/// Arguments for knocking, and for a connection afterwards.
#[derive(Args, Debug)]
pub struct KnockArgs {
    /// Knock on this host: a name, an IPv4 or IPv6 address, or a profile
    #[arg(value_name = "HOST", value_parser = parse_host, required = true)]
    pub host: Option<String>,

    /// Knock on these ports, in this order
    #[arg(value_name = "KNOCK")]
    pub knocks: Vec<KnockSpec>,

    /// Options for knocking.
    #[command(flatten)]
    pub options: KnockOptions,

    /// Connect to this TCP port after the last knock, as soon as it is open; "reply" takes the
    /// port from the host's reply
    #[arg(
        long,
        value_name = "PORT",
        value_parser = parse_connect_to,
        help_heading = CONNECTION,
        display_order = 0
    )]
    pub then_connect: Option<ConnectTo>,

    /// Keep the door open until Ctrl-C: renew before the grant ends, and when this machine's address changes
    #[arg(long, help_heading = KEEP)]
    pub keep: bool,

    /// Renew as for a door that opens for this long [default: what the host answers, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, requires = "keep", help_heading = KEEP)]
    pub open_for: Option<Duration>,

    /// End after this long without success [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, requires = "keep", help_heading = KEEP)]
    pub give_up_after: Option<Duration>,

    /// Run this command, and keep the door open until it ends
    #[arg(last = true, value_name = "COMMAND", requires = "keep")]
    pub command: Vec<OsString>,

    /// Print what would be sent, without secrets, and send nothing
    #[arg(long, conflicts_with_all = ["json", "keep"], help_heading = OUTPUT)]
    pub print: bool,

    /// Print one JSON object per line for each knock, the connection or the failure
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
}

/// Arguments for knocking and relaying standard input and output.
#[derive(Args, Debug)]
pub struct Proxy {
    /// Knock on and connect to this host: a name, an address, or a profile
    #[arg(value_name = "HOST", value_parser = parse_host)]
    pub host: String,

    /// Connect to this TCP port
    #[arg(value_name = "PORT", value_parser = parse_tcp_port)]
    pub port: u16,

    /// Knock on these ports instead of those in the profile
    #[arg(value_name = "KNOCK")]
    pub knocks: Vec<KnockSpec>,

    /// Options for knocking.
    #[command(flatten)]
    pub options: KnockOptions,
}

/// Options for knocking.
#[derive(Args, Debug)]
pub struct KnockOptions {
    /// Take bare ports as UDP, not TCP
    #[arg(short, long, help_heading = KNOCKS)]
    pub udp: bool,

    /// Read the knocks from this file, one a line; bare ports in it are UDP
    #[arg(long, value_name = "FILE", conflicts_with_all = ["knocks", "one_time"], help_heading = KNOCKS)]
    pub file: Option<PathBuf>,

    /// Options for single packet authorization.
    #[command(flatten)]
    pub spa: SpaOptions,

    /// Use the next sequence of this file, and mark it as used
    #[arg(long, value_name = "FILE", conflicts_with = "knocks", help_heading = ONE_TIME)]
    pub one_time: Option<PathBuf>,

    /// Ask this TCP port of the host (or HOST:PORT) which line of the one-time file is next
    #[arg(long, value_name = "PORT[/DOOR]", help_heading = ONE_TIME)]
    pub next_line: Option<NextLineAddress>,

    /// Use the current time-based sequence; FILE holds the shared secret
    #[arg(long, value_name = "FILE", conflicts_with_all = ["knocks", "file", "one_time"], help_heading = TIME)]
    pub otp: Option<PathBuf>,

    /// Take the shared secret from this environment variable
    #[arg(long, value_name = "NAME", conflicts_with_all = ["knocks", "file", "one_time", "otp"], help_heading = TIME)]
    pub otp_env: Option<String>,

    /// Use this shared secret, which other users of this machine can see
    #[arg(long, value_name = "SECRET", conflicts_with_all = ["knocks", "file", "one_time", "otp", "otp_env"], help_heading = TIME)]
    pub otp_secret: Option<Hidden>,

    /// Change the sequence this often [default: 45s]
    #[arg(long, value_name = "DURATION", help_heading = TIME)]
    pub otp_period: Option<Period>,

    /// Use the 256 ports from this one on [default: 20000]
    #[arg(long, value_name = "PORT", help_heading = TIME)]
    pub otp_port_base: Option<u16>,

    /// Use these protocols for the knocks [default: tcp,udp,tcp]
    #[arg(long, value_name = "LIST", help_heading = TIME)]
    pub otp_protocols: Option<Protocols>,

    /// Do not bind the sequence to the source address (server: bind_source = false)
    #[arg(long, conflicts_with = "source", help_heading = TIME)]
    pub otp_no_bind_source: bool,

    /// Name the public address as the server sees it, if behind NAT
    #[arg(long, value_name = "ADDRESS", value_parser = parse_source, help_heading = ADDRESSES)]
    pub source: Option<IpAddr>,

    /// Read profiles from this file [default: ~/.config/knock/config.toml]
    #[arg(short, long, value_name = "FILE", help_heading = OUTPUT)]
    pub config: Option<PathBuf>,

    /// Pause between knocks, so that they can't overtake each other [default: 5ms]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, help_heading = KNOCKS)]
    pub delay: Option<Duration>,

    /// Make each TCP knock a whole connection, for doors with verify = "handshake"
    #[arg(long, help_heading = KNOCKS)]
    pub handshake: bool,

    /// Keep trying to connect for this long after the last knock [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, help_heading = CONNECTION)]
    pub timeout: Option<Duration>,

    /// Knock this many times again if the port does not open in time [default: 0]
    #[arg(long, value_name = "NUMBER", help_heading = CONNECTION)]
    pub retries: Option<u32>,

    /// Use IPv4 only
    #[arg(short = '4', conflicts_with = "only_v6", help_heading = ADDRESSES)]
    pub only_v4: bool,

    /// Use IPv6 only
    #[arg(short = '6', help_heading = ADDRESSES)]
    pub only_v6: bool,

    /// Knock over IPv4 and IPv6: a host opens for each address separately
    #[arg(long, conflicts_with_all = ["only_v4", "only_v6"], help_heading = ADDRESSES)]
    pub dual_stack: bool,

    /// Print the address and each knock
    #[arg(short, long, help_heading = OUTPUT)]
    pub verbose: bool,

    /// Append each step with its time to this file
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub log: Option<PathBuf>,
}

impl KnockOptions {
    /// Returns the settings of time-based sequences.
    #[must_use]
    pub fn otp(&self) -> otp::OtpSettings {
        otp::OtpSettings {
            secret: self.otp_secret.clone(),
            secret_file: self.otp.clone(),
            secret_env: self.otp_env.clone(),
            period: self.otp_period,
            port_base: self.otp_port_base,
            protocols: self.otp_protocols.clone(),
            bind_source: self.otp_no_bind_source.then_some(false),
            source: self.source,
        }
    }

    /// Returns the versions of IP to use, if an option names them.
    #[must_use]
    pub fn families(&self) -> Option<Families> {
        match (self.only_v4, self.only_v6, self.dual_stack) {
            (true, _, _) => Some(Families::V4),
            (_, true, _) => Some(Families::V6),
            (_, _, true) => Some(Families::DualStack),
            (false, false, false) => None,
        }
    }

    /// Returns the protocol of bare ports on the command line.
    #[must_use]
    pub fn bare(&self) -> Protocol {
        if self.udp {
            Protocol::Udp
        } else {
            Protocol::Tcp
        }
    }
}

impl KnockArgs {
    /// Returns the form of the output.
    #[must_use]
    pub fn style(&self) -> ReportStyle {
        match (self.json, self.options.verbose) {
            (true, _) => ReportStyle::Json,
            (false, true) => ReportStyle::Verbose,
            (false, false) => ReportStyle::Quiet,
        }
    }
}

fn parse_host(word: &str) -> Result<String, String> {
    if !destination::can_be_host(word) {
        return Err(format!(
            "'{word}' is not a host: the host comes first, then the knocks"
        ));
    }
    Ok(word.to_owned())
}
