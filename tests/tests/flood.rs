//! A flood of first knocks from spoofed sources: honest clients still get in, and no other source does.
//!
//! With `--nocapture`, the tests print the figures of `docs/decisions/first-knocks.md`.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use knock_common::{
    Address, Reason, Stat,
    layout::{GrantKey, PROGRESS_MAX},
};
use knock_tests::{
    frame::{Frame, SYN, eth},
    kernel::{JudgedFrames, Kernel},
};

/// Attempts outlast every flood here: no first knock is too old to be evicted.
const CONFIG: &str = r#"
    door = [
        { name = "three", knock = ["tcp/7000", "udp/8000", "tcp/9000"], open = ["tcp/22"], sequence_timeout = "30m", open_for = "1d" },
        { name = "two", knock = ["udp/7001", "tcp/8001"], open = ["tcp/23"], sequence_timeout = "30m", open_for = "1d" },
    ]
"#;

const MILLION: u32 = 1_000_000;
/// Honest clients at a time: enough to distinguish 99.9 % from 99 %.
const CLIENTS: u32 = 1_000;
/// Addresses that are not drawn at random: neighbours from the beginning, clients at the end.
const NETWORK: [u8; 4] = [10, 0, 0, 0];
const CLIENTS_FIRST: [u8; 4] = [10, 128, 0, 0];

/// The source with a number, if there is one; each number has another source.
type Sources = fn(u32) -> Option<IpAddr>;

/// Between the first knock of honest clients and their second, unauthorized sources make first knocks.
#[test]
fn honest_clients_get_in_during_a_flood() {
    const ALL: u64 = CLIENTS as u64;
    let mut kernel = Kernel::load(CONFIG).unwrap();
    let mut first_other = 0;
    let [one, two, three] = three();
    for (group, (name, sources, millions, least)) in (0..).zip([
        ("random IPv4", random_v4 as Sources, 1, 990),
        ("IPv4 neighbours", neighbours_v4, 1, 990),
        ("random IPv6", random_v6, 1, 990),
        ("IPv6 neighbours", neighbours_v6, 1, 990),
        ("IPv6 networks", networks_v6, 1, 990),
        ("random IPv4, two million", random_v4, 2, 930),
        ("random IPv4, four million", random_v4, 4, 400),
        ("random IPv4, once more", random_v4, 1, 990),
    ]) {
        let flooding = millions * MILLION;
        let others = || unauthorized_sources(sources, first_other, flooding);
        let knocked = send(&mut kernel, &one, clients(group), Reason::FirstKnock);
        assert_eq!(knocked, ALL, "{name}");
        let began = Instant::now();
        let run = flood(&mut kernel, &one, others());
        let cost = began.elapsed().as_nanos() / u128::from(flooding);
        send(&mut kernel, &two, clients(group), Reason::NextKnock);
        let opened = send(&mut kernel, &three, clients(group), Reason::Opened);
        let evicted = evicted(&run);
        let mistaken = u64::from(flooding) - count(&run, Reason::FirstKnock);
        println!(
            "{name}: {opened} of {CLIENTS} got in, {evicted} of {flooding} evicted another, \
             {mistaken} were taken for another, {cost} ns each"
        );
        assert!(opened >= least, "{name}: {opened} got in, not {least}");
        assert!(evicted > 0, "{name}");
        // One in two million, if the table is full.
        assert!(mistaken < 20, "{name}: {:?}", run.reasons);
        let ssh = SpoofedPacket::tcp(22);
        let refused = send(&mut kernel, &ssh, others().take(1000), Reason::NoGrant);
        assert_eq!(refused, 1000, "{name}");
        // Room for the numbers without a source.
        first_other += flooding + 2 * MILLION;
    }
}

/// A flood of unauthorized sources removes no grants, and one of first knocks removes no attempts past the first
/// knock.
#[test]
fn attempts_and_grants_survive_a_flood() {
    const ALL: u64 = CLIENTS as u64;
    let mut kernel = Kernel::load(CONFIG).unwrap();
    let [one, two, three] = three();
    let come_far = |kernel: &mut Kernel, group| {
        let knocked = send(kernel, &one, clients(group), Reason::FirstKnock);
        let again = send(kernel, &two, clients(group), Reason::NextKnock);
        assert_eq!((knocked, again), (ALL, ALL));
    };
    let grants = |kernel: &mut Kernel| -> HashMap<GrantKey, u64> {
        kernel.allow().unwrap().into_iter().collect()
    };
    come_far(&mut kernel, 0);
    come_far(&mut kernel, 1);
    let opened = send(&mut kernel, &three, clients(0), Reason::Opened);
    assert_eq!(opened, ALL);
    let given = grants(&mut kernel);
    assert_eq!(given.len(), CLIENTS as usize);

    flood(
        &mut kernel,
        &one,
        unauthorized_sources(random_v4, 0, MILLION),
    );
    assert_eq!(grants(&mut kernel), given);
    let opened = send(&mut kernel, &three, clients(1), Reason::Opened);
    assert_eq!(opened, ALL);

    // Unauthorized sources that know the first two knocks.
    let knowing = || unauthorized_sources(random_v4, 2 * MILLION, PROGRESS_MAX);
    let given = grants(&mut kernel);
    come_far(&mut kernel, 2);
    flood(&mut kernel, &one, knowing());
    let deep = send(&mut kernel, &two, knowing(), Reason::NextKnock);
    assert_eq!(grants(&mut kernel), given);
    let opened = send(&mut kernel, &three, clients(2), Reason::Opened);
    println!(
        "{deep} unauthorized sources made two knocks: {opened} of {CLIENTS} clients that had made two got in"
    );
    assert!(deep > u64::from(PROGRESS_MAX / 10 * 9), "{deep}");
    let ssh = SpoofedPacket::tcp(22);
    for group in [0, 1] {
        let granted = send(&mut kernel, &ssh, clients(group), Reason::Granted);
        assert_eq!(granted, ALL);
    }
}

/// A wrong knock after the first one counts, whichever sources knock meanwhile.
#[test]
fn wrong_knocks_end_attempts_during_a_flood() {
    let mut kernel = Kernel::load(CONFIG).unwrap();
    let [one, two, nothing] = [
        SpoofedPacket::udp(7001),
        SpoofedPacket::tcp(8001),
        SpoofedPacket::tcp(7900),
    ];
    let [wrong, right] = [0, 1];
    let both = clients(wrong).chain(clients(right));
    let knocked = send(&mut kernel, &one, both, Reason::FirstKnock);
    assert_eq!(knocked, 2 * u64::from(CLIENTS));
    flood(
        &mut kernel,
        &one,
        unauthorized_sources(random_v4, 0, MILLION / 2),
    );
    let reset = send(&mut kernel, &nothing, clients(wrong), Reason::StrayPort);
    flood(
        &mut kernel,
        &one,
        unauthorized_sources(random_v4, MILLION, MILLION / 2),
    );
    let opened_wrong = send(&mut kernel, &two, clients(wrong), Reason::Opened);
    let opened_right = send(&mut kernel, &two, clients(right), Reason::Opened);
    println!(
        "{opened_wrong} of {CLIENTS} with a wrong knock got in, {opened_right} of {CLIENTS} without"
    );
    assert_eq!(opened_wrong, 0);
    assert!(reset >= 990, "{reset} were reset");
    assert!(opened_right >= 990, "{opened_right} got in");
}

/// A packet of a spoofed source.
struct SpoofedPacket {
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl SpoofedPacket {
    fn new(transport: impl Fn(Frame) -> Frame) -> Self {
        Self {
            v4: transport(eth().ip4("0.0.0.0", "192.0.2.2")).bytes(),
            v6: transport(eth().ip6("::", "2001:db8::2")).bytes(),
        }
    }

    fn tcp(port: u16) -> Self {
        Self::new(|frame| frame.tcp(40_000, port, SYN))
    }

    fn udp(port: u16) -> Self {
        Self::new(|frame| frame.udp(40_000, port))
    }

    fn from(&self, source: IpAddr) -> Vec<u8> {
        // Behind an Ethernet header.
        const V4: usize = 14 + 12;
        const V6: usize = 14 + 8;
        match source {
            IpAddr::V4(source) => {
                let mut frame = self.v4.clone();
                frame[V4..V4 + 4].copy_from_slice(&source.octets());
                frame
            }
            IpAddr::V6(source) => {
                let mut frame = self.v6.clone();
                frame[V6..V6 + 16].copy_from_slice(&source.octets());
                frame
            }
        }
    }
}

/// Returns the knocks of the door "three".
fn three() -> [SpoofedPacket; 3] {
    [
        SpoofedPacket::tcp(7000),
        SpoofedPacket::udp(8000),
        SpoofedPacket::tcp(9000),
    ]
}

/// Returns a permutation of the numbers (the finalizer of `MurmurHash3`: Appleby, 2011).
fn shuffle(number: u32) -> u32 {
    let number = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
    let number = (number ^ number >> 13).wrapping_mul(0xc2b2_ae35);
    number ^ number >> 16
}

fn random_v4(number: u32) -> Option<IpAddr> {
    let source = Ipv4Addr::from(shuffle(number));
    (source.octets()[0] != NETWORK[0]).then(|| host(source.into()))?
}

fn neighbours_v4(number: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from(u32::from_be_bytes(NETWORK) + number).into())
}

fn random_v6(number: u32) -> Option<IpAddr> {
    let words = [0, 1 << 30, 2 << 30, 3 << 30].map(|part| shuffle(part + number));
    let bits = words.iter().fold(0, |bits, &w| bits << 32 | u128::from(w));
    host(Ipv6Addr::from(bits).into())
}

/// Returns an address, if a host can have it: packets from others are bad headers.
fn host(address: IpAddr) -> Option<IpAddr> {
    Address::from(address).is_host().then_some(address)
}

fn neighbours_v6(number: u32) -> Option<IpAddr> {
    Some(Ipv6Addr::from(0xfd00 << 112 | u128::from(number)).into())
}

fn networks_v6(number: u32) -> Option<IpAddr> {
    Some(Ipv6Addr::from(0xfd01 << 112 | u128::from(number) << 64).into())
}

/// Returns the `count` unauthorized sources from number `first` on.
fn unauthorized_sources(sources: Sources, first: u32, count: u32) -> impl Iterator<Item = IpAddr> {
    (first..).filter_map(sources).take(count as usize)
}

/// Returns honest clients; groups share none.
fn clients(group: u32) -> impl Iterator<Item = IpAddr> {
    let first = u32::from_be_bytes(CLIENTS_FIRST) + group * CLIENTS;
    (first..first + CLIENTS).map(|bits| Ipv4Addr::from(bits).into())
}

fn flood(
    kernel: &mut Kernel,
    packet: &SpoofedPacket,
    sources: impl Iterator<Item = IpAddr>,
) -> JudgedFrames {
    let frames = sources.map(|source| packet.from(source));
    kernel.judge_all(frames).unwrap()
}

/// Sends a packet from each source, and returns how many got this reason.
fn send(
    kernel: &mut Kernel,
    packet: &SpoofedPacket,
    sources: impl Iterator<Item = IpAddr>,
    reason: Reason,
) -> u64 {
    count(&flood(kernel, packet, sources), reason)
}

fn count(run: &JudgedFrames, reason: Reason) -> u64 {
    let counted = run.reasons.iter().find(|(counted, _)| *counted == reason);
    counted.map_or(0, |(_, count)| *count)
}

fn evicted(run: &JudgedFrames) -> u64 {
    let stats = run.stats.iter();
    let mut evicted = stats.filter(|(stat, _)| *stat == Stat::FirstKnocksEvicted);
    evicted.next().map_or(0, |(_, count)| *count)
}
