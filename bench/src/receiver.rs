//! The programs between the link and the server's network stack: `knock-user`, its peers, or none.

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use knock_tests::{
    daemon::{self, Daemon},
    net::{Net, SERVER_LINK},
    process::Process,
    source::Source,
    wire::{datagram, syn, whole},
};
use serde_json::Value;

use crate::{
    baselines::Baselines,
    fwknop::{self, DigestCache, Fwknopd},
    generator::ReceivedFrames,
    knockd::{self, Knockd},
    usage,
    xdp_filter::{self, FilterFeatures},
};

/// The door of the README.
pub const CONFIG: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22"]
"#;

/// The interface in native mode: `auto` chooses generic mode on veth, and the peers run in the driver.
pub const ON_THE_LINK: &[&str] = &["--iface", SERVER_LINK, "--mode", "native"];

/// The interface behind the driver, and at traffic control.
const BEHIND_THE_DRIVER: &[&str] = &["--iface", SERVER_LINK, "--mode", "skb"];
const AT_TRAFFIC_CONTROL: &[&str] = &["--iface", SERVER_LINK, "--mode", "tc"];

/// Allowed sources in the rule sets that have a set of them.
const ALLOWED: u32 = 1000;

/// A kind of receiver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReceiverKind {
    /// `knock-user` in the driver.
    KnockUser,
    /// `knock-user` at XDP behind the driver.
    KnockUserSkb,
    /// `knock-user` at traffic control.
    KnockUserTc,
    /// An XDP program that drops everything.
    Empty,
    /// The same behind the driver.
    EmptySkb,
    /// `xdp-filter`.
    Filter(FilterFeatures),
    /// nftables at the device: a set of allowed sources.
    NftIngress,
    /// nftables in the input hook: a set of allowed sources.
    NftInput,
    /// The nftables wiki's port knocking example, dropping instead of refusing.
    NftRecipe,
    /// No firewall: the stack answers SYNs to a closed port with RST.
    Nothing,
    /// knockd, which adds to a set of nftables in the input hook.
    Knockd,
    /// fwknopd, which does the same.
    Fwknopd(fwknop::FwknopdMode),
}

impl ReceiverKind {
    /// The peers that admit a client after knocks.
    pub const DOORS: [Self; 4] = [
        Self::NftRecipe,
        Self::Knockd,
        Self::Fwknopd(fwknop::FwknopdMode::Udp),
        Self::Fwknopd(fwknop::FwknopdMode::Pcap),
    ];

    /// The receivers beside `knock-user` that are flooded.
    pub const PEERS: [Self; 10] = [
        Self::KnockUserSkb,
        Self::KnockUserTc,
        Self::Empty,
        Self::EmptySkb,
        Self::Filter(FilterFeatures::Tcp),
        Self::Filter(FilterFeatures::All),
        Self::NftIngress,
        Self::NftInput,
        Self::NftRecipe,
        Self::Nothing,
    ];

    /// Returns the name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KnockUser => "knock-user",
            Self::KnockUserSkb => "knock-user, skb",
            Self::KnockUserTc => "knock-user, tc",
            Self::Empty => "empty drop",
            Self::EmptySkb => "empty drop, skb",
            Self::Filter(features) => features.name(),
            Self::NftIngress => "nft ingress",
            Self::NftInput => "nft input",
            Self::NftRecipe => "nft recipe",
            Self::Nothing => "no filter",
            Self::Knockd => "knockd",
            Self::Fwknopd(fwknop::FwknopdMode::Pcap) => "fwknopd",
            Self::Fwknopd(fwknop::FwknopdMode::Udp) => "fwknopd -U",
        }
    }

    /// Returns why it can't be measured here, if so.
    pub fn missing(self) -> Option<String> {
        let is_there = match self {
            Self::KnockUser
            | Self::KnockUserSkb
            | Self::KnockUserTc
            | Self::Empty
            | Self::EmptySkb
            | Self::Nothing => true,
            Self::Filter(_) => is_installed("xdp-filter"),
            Self::NftIngress | Self::NftInput | Self::NftRecipe => is_installed("nft"),
            Self::Knockd => is_installed("nft") && is_installed("knockd"),
            Self::Fwknopd(_) => {
                is_installed("nft") && is_installed("fwknopd") && is_installed("fwknop")
            }
        };
        (!is_there).then(|| "not installed".to_owned())
    }
}

/// Returns whether a program is on the path, or where programs for root are.
pub fn is_installed(program: &str) -> bool {
    usage::program(program).is_some()
}

/// A receiver that is in place until it is dropped.
pub struct Receiver<'n> {
    kind: ReceiverKind,
    net: &'n Net,
    before: ReceivedFrames,
    in_place: InPlace,
}

enum InPlace {
    Daemon(Daemon),
    /// The daemon, where the link does not count what its program drops, and the drops counted before.
    Behind(Daemon, u64),
    Empty(#[expect(dead_code, reason = "attached as long as it is here")] Baselines),
    /// The same where nothing counts its drops.
    EmptySkb(#[expect(dead_code, reason = "attached as long as it is here")] Baselines),
    Filter,
    Rules,
    Nothing,
    Knockd(Knockd),
    Fwknopd(Fwknopd),
}

impl<'n> Receiver<'n> {
    /// Installs a receiver in front of the server.
    pub fn start(net: &'n Net, kind: ReceiverKind) -> Result<Self> {
        let in_place = match kind {
            ReceiverKind::KnockUser => {
                InPlace::Daemon(Daemon::start_with(&net.server, CONFIG, ON_THE_LINK))
            }
            ReceiverKind::KnockUserSkb => behind(net, BEHIND_THE_DRIVER)?,
            ReceiverKind::KnockUserTc => behind(net, AT_TRAFFIC_CONTROL)?,
            ReceiverKind::Empty => InPlace::Empty(attach_empty(net, XdpMode::Driver)?),
            ReceiverKind::EmptySkb => InPlace::EmptySkb(attach_empty(net, XdpMode::Skb)?),
            ReceiverKind::Filter(features) => {
                xdp_filter::deny_ssh(&net.server, SERVER_LINK, features);
                InPlace::Filter
            }
            ReceiverKind::NftIngress => rules(net, &ingress()),
            ReceiverKind::NftInput => rules(net, &input()),
            ReceiverKind::NftRecipe => rules(net, &recipe()),
            ReceiverKind::Nothing => InPlace::Nothing,
            ReceiverKind::Knockd => {
                let_clients_in(net);
                InPlace::Knockd(knockd::start(net)?)
            }
            ReceiverKind::Fwknopd(mode) => {
                let_clients_in(net);
                // No packet is sent twice.
                InPlace::Fwknopd(fwknop::start(net, mode, DigestCache::Off)?)
            }
        };
        let before = ReceivedFrames::by(&net.server, SERVER_LINK);
        Ok(Self {
            kind,
            net,
            before,
            in_place,
        })
    }

    /// Returns the frames taken from the ring since it was installed, and those that were dropped. The program that
    /// drops counts them, so that a rule that matches nothing does not look fast.
    pub fn received(&self) -> Result<ReceivedFrames> {
        let ReceivedFrames { frames, dropped } =
            ReceivedFrames::by(&self.net.server, SERVER_LINK).since(self.before);
        let dropped = match self.in_place {
            InPlace::Rules | InPlace::Knockd(_) | InPlace::Fwknopd(_) => counted(self.net)?,
            InPlace::Daemon(_) | InPlace::Empty(_) | InPlace::Filter => dropped,
            InPlace::Behind(_, before) => dropped_by_daemon(self.net)? - before,
            InPlace::EmptySkb(_) | InPlace::Nothing => frames,
        };
        Ok(ReceivedFrames { frames, dropped })
    }

    /// Returns its kind.
    pub fn kind(&self) -> ReceiverKind {
        self.kind
    }

    /// Returns its process, if it has one.
    pub fn process(&self) -> Option<&Process> {
        match &self.in_place {
            InPlace::Daemon(daemon) | InPlace::Behind(daemon, _) => Some(daemon.process()),
            InPlace::Knockd(knockd) => Some(&knockd.process),
            InPlace::Fwknopd(fwknopd) => Some(&fwknopd.process),
            InPlace::Empty(_)
            | InPlace::EmptySkb(_)
            | InPlace::Filter
            | InPlace::Rules
            | InPlace::Nothing => None,
        }
    }

    /// Returns the frames that open tcp/22 for a source, in order.
    ///
    /// # Errors
    /// A packet could not be made.
    pub fn knocks(&self, source: &Source<'_>) -> Result<Vec<Vec<u8>>> {
        const FROM: u16 = 40_000;
        let path = source.path();
        let payloads = match &self.in_place {
            InPlace::Fwknopd(fwknopd) => {
                let packet = fwknopd.keys.packet(&self.net.client, &source.name())?;
                vec![datagram(path, FROM, fwknop::PORT, &packet)]
            }
            InPlace::Daemon(_)
            | InPlace::Behind(..)
            | InPlace::Knockd(_)
            | InPlace::Rules
            | InPlace::Empty(_)
            | InPlace::EmptySkb(_)
            | InPlace::Filter
            | InPlace::Nothing => vec![
                syn(path, FROM, 7000),
                datagram(path, FROM, 8000, &[0]),
                syn(path, FROM, 9000),
            ],
        };
        Ok(payloads
            .iter()
            .map(|payload| whole(path, payload))
            .collect())
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        match self.in_place {
            InPlace::Filter => {
                // The bpffs with the pins of xdp-filter ended with the shell that loaded it.
                self.net
                    .server
                    .try_run("ip", &["link", "set", SERVER_LINK, "xdp", "off"]);
            }
            InPlace::Rules | InPlace::Knockd(_) | InPlace::Fwknopd(_) => {
                self.net.server.try_run("nft", &["flush", "ruleset"]);
            }
            InPlace::Daemon(_)
            | InPlace::Behind(..)
            | InPlace::Empty(_)
            | InPlace::EmptySkb(_)
            | InPlace::Nothing => {}
        }
    }
}

fn attach_empty(net: &Net, mode: XdpMode) -> Result<Baselines> {
    let mut baselines = Baselines::load(&[])?;
    baselines.attach("drop", &net.server, SERVER_LINK, mode)?;
    Ok(baselines)
}

fn behind(net: &Net, arguments: &[&str]) -> Result<InPlace> {
    let daemon = Daemon::start_with(&net.server, CONFIG, arguments);
    Ok(InPlace::Behind(daemon, dropped_by_daemon(net)?))
}

/// Returns how many packets the program has dropped, by its own counters.
fn dropped_by_daemon(net: &Net) -> Result<u64> {
    let (_, status) = daemon::ask(&net.server, &["status", "--json"]);
    let status: Value = serde_json::from_str(&status)
        .with_context(|| format!("reading what knock-user status printed: {status}"))?;
    let counters = status["counters"].as_array().into_iter().flatten();
    let drops = counters.filter(|counter| counter["verdict"] == "drop");
    Ok(drops.filter_map(|counter| counter["count"].as_u64()).sum())
}

fn rules(net: &Net, text: &str) -> InPlace {
    let file = daemon::config_file(text.as_bytes());
    let path = file.path().to_string_lossy();
    net.server.run("nft", &["-f", &path]);
    InPlace::Rules
}

/// Returns the packets that the rules counted, each once.
fn counted(net: &Net) -> Result<u64> {
    let output = net.server.run("nft", &["--json", "list", "counters"]);
    let listed: Value = serde_json::from_str(&output).context("reading what nft counted")?;
    let objects = listed["nftables"].as_array().into_iter().flatten();
    let packets = objects.filter_map(|object| object["counter"]["packets"].as_u64());
    Ok(packets.sum())
}

fn allowed() -> String {
    let sources = (0..ALLOWED).map(|n| format!("172.16.{}.{}", n >> 8, n & 255));
    sources.collect::<Vec<_>>().join(", ")
}

fn ingress() -> String {
    format!(
        "table netdev knock {{\n\
           counter denied {{ }}\n\
           set allowed {{ type ipv4_addr; flags timeout; elements = {{ {} }}; }}\n\
           chain ingress {{\n\
             type filter hook ingress device {SERVER_LINK} priority -10; policy accept;\n\
             tcp dport 22 ip saddr @allowed accept\n\
             tcp dport 22 counter name denied drop\n\
           }}\n\
         }}\n",
        allowed()
    )
}

fn input() -> String {
    format!(
        "table inet knock {{\n\
           counter denied {{ }}\n\
           set allowed {{ type ipv4_addr; flags timeout; elements = {{ {} }}; }}\n\
           chain input {{\n\
             type filter hook input priority -10; policy accept;\n\
             tcp dport 22 ip saddr @allowed accept\n\
             tcp dport 22 counter name denied drop\n\
           }}\n\
         }}\n",
        allowed()
    )
}

/// Sets the rules with the set to which a daemon adds clients.
pub fn let_clients_in(net: &Net) {
    let text = "table inet knock {\n\
       counter denied { }\n\
       set clients { type ipv4_addr; size 65536; flags timeout; }\n\
       chain input {\n\
         type filter hook input priority -10; policy accept;\n\
         tcp dport 22 ip saddr @clients accept\n\
         tcp dport 22 ct state established,related accept\n\
         tcp dport 22 counter name denied drop\n\
       }\n\
     }\n";
    rules(net, text);
}

/// Returns the rules of <https://wiki.nftables.org/wiki-nftables/index.php/Port_knocking_example>, with the same knocks
/// and enough time for a slow client. The original sends a reset; this one is silent like knock-user.
fn recipe() -> String {
    let stage = |knock: &str, condition: &str, then: &str| format!("{knock} {condition} {then}\n");
    let after = |port: &str| format!("add @candidates {{ ip saddr . {port} timeout 25s }}");
    let at = |protocol: &str| format!("ip saddr . {protocol} dport @candidates");
    [
        "table inet knock {\n\
           counter denied { }\n\
           set clients { type ipv4_addr; size 65536; flags timeout, dynamic; }\n\
           set candidates { type ipv4_addr . inet_service; size 65536; flags timeout, dynamic; }\n\
           chain input {\n\
             type filter hook input priority -10; policy accept;\n"
            .to_owned(),
        stage("tcp dport 7000", "", &after("8000")),
        stage("udp dport 8000", &at("udp"), &after("9000")),
        stage(
            "tcp dport 9000",
            &at("tcp"),
            "add @clients { ip saddr timeout 30s }",
        ),
        "tcp dport { 7000, 9000 } drop\n\
         udp dport 8000 drop\n\
         tcp dport 22 ip saddr @clients accept\n\
         tcp dport 22 ct state established,related accept\n\
         tcp dport 22 counter name denied drop\n\
         }\n}\n"
            .to_owned(),
    ]
    .concat()
}
