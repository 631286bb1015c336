//! Two packets of one source on two CPUs at once: for each order in which the CPUs read and write, the result is that
//! of one packet after the other.
//!
//! `loom` runs the judge with each order of accesses to the words that it changes, and with each value that a CPU with
//! weakly ordered memory may read from them.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed as StdRelaxed},
    },
};

use bytemuck::Zeroable as _;
use knock_common::{
    Address, Env, Reason, Stat,
    answer::Answer,
    automaton::Progress,
    blocked::Blocked,
    claim,
    connection::Connection,
    cookie,
    env::{Bucket, Table, Word},
    event::Event,
    fwknop,
    grant::Grant,
    hmac_sha256, judge, knock,
    layout::{
        Config, DoorEntry, EdgeKey, Features, FlagClass, FlowKey, FromKey, GrantKey, Node,
        OtpEntry, PortRule, ProgressKey, Symbol, UsedKey, WAYS, port_index,
    },
    lockout,
    native::NativeEnv,
    packet::{
        Protocol::{Tcp, Udp},
        flag::{ACK, SYN},
    },
    packet_info::PacketInfo,
    reason::Reporting,
    sha256,
    siphash::{siphash, siphash_128},
    spa::{
        layout::{
            FwknopKey, Gate, SpaKey, SpaKeyId, SpaKeyName, SpaMay, SpaMayKey, SpaScratch, SpaTag,
        },
        port::{Otherwise, SpaFormats, SpaPort},
    },
    time::Moment,
};
use knock_frame::eth;
use loom::{
    model::Builder,
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    thread,
};

const CLIENT: &str = "198.51.100.7";
const SERVER: &str = "192.0.2.2";
const CLIENT_PORT: u16 = 40_000;
const NOW: Moment = Moment::from_nanos(1 << 40);
const KEY: [u64; 2] = [7, 11];
/// The value of a word that does not exist.
const ABSENT: u64 = u64::MAX;

use SentPacket::{Forged, Proof, Spa, SpaClose, Syn};

const SPA_PORT: u16 = 62_201;
const STAMP: u64 = 1_800_000_000_000_000_000;
const WINDOW: u64 = 1_000_000;

const A: u16 = 7000;
const B: u16 = 8000;
const C: u16 = 9000;
/// The second of two knocks, the first of which is `A`.
const D: u16 = 7100;
const SINGLE: u16 = 7200;
/// With a handshake: the second of two knocks, the first of which is `A`.
const PROVED: u16 = 7300;
const DECOY: u16 = 7400;
const PROTECTED: u16 = 22;
const UNUSED: u16 = 1234;

/// All kinds of packets; each has a different effect in some state.
const PACKETS: [SentPacket; 11] = [
    Syn(A),
    Syn(B),
    Syn(C),
    Syn(D),
    Syn(SINGLE),
    Syn(PROVED),
    Proof(PROVED),
    Forged(PROVED),
    Syn(DECOY),
    Syn(PROTECTED),
    Syn(UNUSED),
];

/// States, by the packets that lead to them.
const STATES: [(&str, &[SentPacket]); 7] = [
    ("nothing", &[]),
    ("a first knock", &[Syn(A)]),
    ("two of three knocks", &[Syn(A), Syn(B)]),
    ("all knocks", &[Syn(A), Syn(B), Syn(C)]),
    ("a single knock", &[Syn(SINGLE)]),
    // Two failures lock out: the next wrong knock is the second.
    ("a failure and a first knock", &[Syn(A), Syn(C), Syn(A)]),
    (
        "a failure and two knocks",
        &[Syn(A), Syn(C), Syn(A), Syn(B)],
    ),
];

#[test]
fn two_packets_at_once_count_as_one_after_the_other() {
    let mut orders = 0;
    let mut spoiled = 0;
    for (state, history) in STATES {
        for (index, a) in PACKETS.into_iter().enumerate() {
            for b in PACKETS.into_iter().skip(index) {
                let explored = at_once(history, [a, b], true);
                assert!(
                    explored.wrong.is_empty(),
                    "after {state}, {a:?} and {b:?} at once: {:#?}, but one after the other {:#?}",
                    explored.wrong,
                    [false, true].map(|swap| one_after_the_other(history, [a, b], swap)),
                );
                orders += explored.orders;
                spoiled += explored.spoiled;
            }
        }
    }
    println!("{orders} orders of accesses, in {spoiled} of them a CPU did not wait");
    assert!(spoiled > 0, "giving up was never explored");
}

/// Packets of one key, beside each other and beside knocks: each stamp is used once, and the greatest one stays.
#[test]
fn a_stamp_is_used_once_on_two_cpus() {
    let mut orders = 0;
    for (state, history) in [
        ("nothing", &[][..]),
        ("an earlier packet", &[Spa(1)]),
        ("a knock on the same door", &[Syn(SINGLE)]),
    ] {
        for packets in [
            [Spa(5), Spa(5)],
            [Spa(5), Spa(6)],
            [Spa(6), Spa(5)],
            [Spa(5), SpaClose(6)],
            [SpaClose(5), Spa(6)],
            [SpaClose(5), SpaClose(5)],
            [Spa(1), Spa(5)],
            [Spa(5), Syn(SINGLE)],
            [SpaClose(5), Syn(A)],
            [Spa(5), Syn(PROTECTED)],
        ] {
            let explored = at_once(history, packets, true);
            let wrong = explored.wrong.iter();
            let wrong: Vec<_> = wrong
                .filter(|outcome| !overtook(packets, outcome))
                .collect();
            assert!(
                wrong.is_empty(),
                "after {state}, {packets:?} at once: {wrong:#?}"
            );
            orders += explored.orders;
        }
    }
    println!("{orders} orders of accesses");
}

/// Shows that the search finds races: without claims, a wrong knock and the correct one both count.
#[test]
fn without_claims_both_knocks_count() {
    for (name, history, packets, both) in [
        (
            "a wrong second knock and the correct one",
            &[Syn(A)][..],
            [Syn(C), Syn(B)],
            [Reason::WrongKnock, Reason::NextKnock],
        ),
        (
            "an unused port and the correct second knock",
            &[Syn(A)],
            [Syn(UNUSED), Syn(B)],
            [Reason::StrayPort, Reason::NextKnock],
        ),
        (
            "a decoy and the last of two knocks",
            &[Syn(A)],
            [Syn(DECOY), Syn(D)],
            [Reason::Decoy, Reason::Opened],
        ),
    ] {
        let explored = at_once(history, packets, false);
        let both = explored
            .wrong
            .iter()
            .find(|outcome| outcome.reasons == both && (outcome.node != 0));
        assert!(both.is_some(), "{name}: {:#?}", explored.wrong);
    }
}

/// A word that both CPUs share, or one that is 0 and never written.
#[derive(Clone)]
enum SharedWord {
    Shared(Arc<AtomicU64>),
    Empty,
}

impl SharedWord {
    fn new(value: u64) -> Self {
        Self::Shared(Arc::new(AtomicU64::new(value)))
    }
}

impl Word for SharedWord {
    fn load(&self) -> u64 {
        match self {
            Self::Shared(word) => word.load(Relaxed),
            Self::Empty => 0,
        }
    }

    fn store(&self, value: u64) {
        match self {
            Self::Shared(word) => word.store(value, Relaxed),
            Self::Empty => unreachable!("{value} is written into an unused cell"),
        }
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        match self {
            Self::Shared(word) => word.compare_exchange(old, new, SeqCst, SeqCst).is_ok(),
            Self::Empty => unreachable!("{new} is written into an unused cell"),
        }
    }
}

/// A table with one key, since there is one source.
#[derive(Clone)]
struct One(SharedWord);

impl<K> Table<K> for One {
    type Word = SharedWord;

    fn find(&self, _key: &K) -> Option<SharedWord> {
        (self.0.load() != ABSENT).then(|| self.0.clone())
    }

    fn insert(&self, _key: &K, value: u64) -> bool {
        self.0.replace(ABSENT, value)
    }
}

/// Grants by port group.
#[derive(Clone)]
struct Grants(Vec<One>);

impl Table<GrantKey> for Grants {
    type Word = SharedWord;

    fn find(&self, key: &GrantKey) -> Option<SharedWord> {
        self.0[usize::from(key.port_group)].find(key)
    }

    fn insert(&self, key: &GrantKey, value: u64) -> bool {
        self.0[usize::from(key.port_group)].insert(key, value)
    }
}

/// A bucket that uses its last cell only, which is taken first.
#[derive(Clone)]
struct Single(SharedWord);

impl Bucket for Single {
    type Word = SharedWord;

    fn cell(&self, way: usize) -> Option<SharedWord> {
        Some(if way == WAYS - 1 {
            self.0.clone()
        } else {
            SharedWord::Empty
        })
    }
}

/// The maps that user space writes.
struct UserTables {
    features: Features,
    config: Config,
    ports: HashMap<u32, PortRule>,
    nodes: Vec<Node>,
    edges: HashMap<EdgeKey, u32>,
    doors: Vec<DoorEntry>,
    gate: Gate,
    key: SpaKey,
    may: SpaMay,
}

/// A CPU, and the maps that it shares with the other CPU.
#[derive(Clone)]
struct Cpu {
    tables: Arc<UserTables>,
    presence: SharedWord,
    first: SharedWord,
    claim: SharedWord,
    progress: One,
    grants: Grants,
    flows: One,
    used: One,
    /// The replay word of the user's key.
    last: One,
    lockout: SharedWord,
    /// Whether attempts are claimed.
    claims: bool,
    answer: Cell<Option<Answer>>,
    /// How often a claim was refused or spoiled.
    refused: Cell<u32>,
}

impl Cpu {
    fn new(tables: &Arc<UserTables>, claims: bool) -> Self {
        let empty = || One(SharedWord::new(ABSENT));
        Self {
            tables: Arc::clone(tables),
            presence: SharedWord::new(0),
            first: SharedWord::new(0),
            claim: SharedWord::new(0),
            progress: empty(),
            grants: Grants((0..tables.doors.len()).map(|_| empty()).collect()),
            flows: empty(),
            used: empty(),
            last: One(SharedWord::new(0)),
            lockout: SharedWord::new(0),
            claims,
            answer: Cell::default(),
            refused: Cell::default(),
        }
    }
}

impl Env for Cpu {
    type Word = SharedWord;

    fn now(&self) -> Moment {
        NOW
    }

    fn features(&self) -> Features {
        self.tables.features
    }

    fn port(&self, index: u32) -> PortRule {
        self.tables.ports.get(&index).copied().unwrap_or_default()
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.tables.config)
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.tables.nodes.get(index as usize)
    }

    fn edge(&self, key: &EdgeKey) -> Option<u32> {
        self.tables.edges.get(key).copied()
    }

    fn door(&self, index: u32) -> Option<&DoorEntry> {
        self.tables.doors.get(index as usize)
    }

    fn otp(&self, _door: u16) -> Option<&OtpEntry> {
        None
    }

    fn target(&self, _address: Address) -> u16 {
        0
    }

    fn is_trusted(&self, _source: Address) -> bool {
        false
    }

    fn has_blocks(&self) -> bool {
        false
    }

    fn blocked(&self, _source: Address) -> Option<Blocked> {
        None
    }

    fn is_in_block_list(&self, _source: Address) -> bool {
        false
    }

    fn is_from(&self, _key: &FromKey) -> bool {
        true
    }

    fn presence(&self, _slot: u32) -> Option<SharedWord> {
        Some(self.presence.clone())
    }

    fn bucket(&self, _index: u32) -> Option<impl Bucket<Word = SharedWord>> {
        Some(Single(self.first.clone()))
    }

    fn claim_word(&self, _slot: u32) -> Option<SharedWord> {
        Some(self.claim.clone())
    }

    fn progress(&self) -> &impl Table<ProgressKey, Word = SharedWord> {
        &self.progress
    }

    fn allow(&self) -> &impl Table<GrantKey, Word = SharedWord> {
        &self.grants
    }

    fn flows(&self) -> &impl Table<FlowKey, Word = SharedWord> {
        &self.flows
    }

    fn lockouts(&self, _bucket: u32) -> Option<impl Bucket<Word = SharedWord>> {
        Some(Single(self.lockout.clone()))
    }

    fn lockout_key(&self) -> Option<&[u64; WAYS]> {
        Some(&[3; WAYS])
    }

    fn used(&self) -> &impl Table<UsedKey, Word = SharedWord> {
        &self.used
    }

    fn wall_clock(&self) -> u64 {
        STAMP - NOW.nanos()
    }

    fn spa_gate(&self, index: u32) -> Option<&Gate> {
        (index == 0).then_some(&self.tables.gate)
    }

    fn spa_key(&self, _name: &SpaKeyName) -> Option<&SpaKey> {
        Some(&self.tables.key)
    }

    fn spa_may(&self, _key: &SpaMayKey) -> Option<&SpaMay> {
        Some(&self.tables.may)
    }

    fn spa_last(&self) -> &impl Table<SpaKeyId, Word = SharedWord> {
        &self.last
    }

    fn spa_seen(&self) -> &impl Table<SpaTag, Word = SharedWord> {
        &self.used
    }

    fn spa_other(&self) -> Address {
        Address::ANY
    }

    fn set_spa_other(&self, _other: Address) {}

    fn with_spa_scratch<T>(&self, judge: impl FnOnce(&mut SpaScratch) -> T) -> Option<T> {
        Some(judge(&mut SpaScratch::zeroed()))
    }

    fn with_fwknop_scratch<T>(
        &self,
        judge: impl FnOnce(&mut fwknop::FwknopScratch) -> T,
    ) -> Option<T> {
        Some(judge(&mut fwknop::FwknopScratch::zeroed()))
    }

    fn fwknop_key(&self, _index: u32) -> Option<&FwknopKey> {
        None
    }

    fn event_limit(&self, _reporting: Reporting) -> Option<SharedWord> {
        None
    }

    fn emit(&self, _event: impl FnOnce() -> Event) -> bool {
        true
    }

    fn count(&self, stat: Stat) {
        if stat == Stat::ProgressRefused {
            self.refused.set(self.refused.get() + 1);
        }
    }

    fn answer(&self, answer: Answer) {
        self.answer.set(Some(answer));
    }
}

impl NativeEnv for Cpu {
    /// Gives up after one try, so that `loom` explores that too.
    fn take_claim(&self, slot: u32) -> bool {
        !self.claims || claim::take_slot(self, slot, 1) != 0
    }

    fn return_claim(&self, slot: u32) -> bool {
        !self.claims || claim::give_back(self, slot) != 0
    }
}

/// A packet of the source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SentPacket {
    /// A SYN to a port.
    Syn(u16),
    /// An ACK to a port, with the cookie from the answer to its SYN.
    Proof(u16),
    /// An ACK to a port with a number that is not a cookie.
    Forged(u16),
    /// A SPA packet that opens the door of [`SINGLE`]; its stamp is this much later than the first.
    Spa(u64),
    /// One that closes it.
    SpaClose(u64),
}

fn tables() -> Arc<UserTables> {
    let node = |port: u16, depth: u8, completes: u16| Node {
        symbol: Symbol::new(Tcp, port),
        sequence_timeout_ticks: 1000,
        step_timeout_ticks: 1000,
        depth,
        completes: [completes, 0, 0, 0],
        ..Node::default()
    };
    let edge =
        |from: u32, port: u16, to: u32| (EdgeKey::from_node(from, Symbol::new(Tcp, port)), to);
    let door = |number: u16| DoorEntry {
        open_for_ms: 30_000,
        sequence_timeout_ticks: 1000,
        port_group_count: 1,
        number,
        port_groups: std::array::from_fn(|index| if index == 0 { number } else { 0 }),
        ..DoorEntry::default()
    };
    let port = |port: u16, rule: PortRule| (port_index(Tcp, port), rule);
    Arc::new(UserTables {
        features: Features::STRICT
            .with(Features::LOCKOUT)
            .with(Features::ANSWERS)
            .with(Features::SPA),
        config: Config {
            confirm_by_ms: u64::MAX,
            fleet_until_ms: 0,
            flow_idle_ms: [60_000; 2],
            lockout_ms: 60_000,
            cell_key: std::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15 ^ (i as u64) << 17),
            cookie_keys: [KEY; 2],
            spa_window_ns: WINDOW,
            lockout_failures: 2,
            attempt_max_ticks: 1000,
            flag_classes: [FlagClass::SYN; 16],
            first_knocks_shift: 0,
            lockouts_shift: 0,
        },
        ports: [
            port(A, PortRule::knock(0, 1)),
            port(B, PortRule::knock(0, 0)),
            port(C, PortRule::knock(0, 0)),
            port(D, PortRule::knock(0, 0)),
            port(SINGLE, PortRule::knock(0, 5)),
            port(PROVED, PortRule::knock(0, 0).with_handshake()),
            port(DECOY, PortRule::DECOY),
            port(PROTECTED, PortRule::protected(0)),
            (
                port_index(Udp, SPA_PORT),
                PortRule::spa(SpaPort {
                    formats: SpaFormats::KNOCK,
                    otherwise: Otherwise::Drop,
                }),
            ),
        ]
        .into(),
        nodes: vec![
            Node::default(),
            node(A, 1, 0),
            node(B, 2, 0),
            node(C, 3, 1),
            node(D, 2, 2),
            node(SINGLE, 1, 3),
            node(PROVED, 2, 4),
        ],
        edges: [
            edge(1, B, 2),
            edge(2, C, 3),
            edge(1, D, 4),
            edge(5, SINGLE, 5),
            edge(1, PROVED, 6),
        ]
        .into(),
        doors: (0..4).map(door).collect(),
        gate: Gate {
            check: KEY,
            mask: KEY,
            is_used: 1,
        },
        key: SpaKey {
            not_after_ns: u64::MAX,
            user: 1,
            ..SpaKey::default()
        },
        may: SpaMay {
            open_for_ms: 30_000,
            open_for_max_ms: 30_000,
            entry: 2,
            ..SpaMay::default()
        },
    })
}

fn send(cpu: &Cpu, packet: SentPacket) -> Reason {
    let frame = |port: u16, flags: u8, acknowledged: u32| {
        let mut bytes = eth()
            .ip4(CLIENT, SERVER)
            .tcp(CLIENT_PORT, port, flags)
            .bytes();
        let at = bytes.len() - 12;
        bytes[at..at + 4].copy_from_slice(&acknowledged.to_be_bytes());
        bytes
    };
    let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
    let bytes = match packet {
        Syn(port) => frame(port, SYN, 0),
        Forged(port) => frame(port, ACK, 12_345),
        Proof(port) => {
            let connection = Connection {
                source: address(CLIENT),
                destination: address(SERVER),
                source_port: CLIENT_PORT,
                port,
            };
            let cookie = cookie::make(cpu, &connection, NOW);
            frame(port, ACK, cookie.wrapping_add(1))
        }
        Spa(later) => spa_frame(later, 0),
        SpaClose(later) => spa_frame(later, 1),
    };
    judge(&bytes[..], cpu)
}

/// Returns a packet that is sealed with keys of zeros, as [`tables`] has them.
fn spa_frame(later: u64, action: u8) -> Vec<u8> {
    let mut body = [0; 32];
    body[28] = action;
    let header = [0, STAMP + later].map(u64::to_le_bytes).concat();
    let key = hmac_sha256::HmacKey::default();
    for (octet, mask) in body.iter_mut().zip(hmac(&key, &header)) {
        *octet ^= mask;
    }
    let mac = hmac(&key, &[&header[..], &body].concat());
    let tag = &mac[..16];
    let word = |octets: &[u8]| u64::from_le_bytes(octets.try_into().unwrap());
    let [id, stamp] = siphash_128(KEY, [word(&tag[..8]), word(&tag[8..])]);
    let masked = [id, stamp ^ (STAMP + later)].map(u64::to_le_bytes).concat();
    let packet = [tag, &masked, &body].concat();
    let words: Vec<u64> = packet.chunks(8).map(word).collect();
    let gate = siphash::<8>(KEY, words.try_into().unwrap()).to_le_bytes();
    let payload = [&packet[..], &gate].concat();
    eth()
        .ip4(CLIENT, SERVER)
        .datagram(CLIENT_PORT, SPA_PORT, &payload)
        .bytes()
}

/// Returns the HMAC of a text that takes one block.
fn hmac(key: &hmac_sha256::HmacKey, text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..text.len()].copy_from_slice(text);
    block[text.len()] = 0x80;
    let mut work = sha256::Sha256Work::default();
    key.begin(&mut work);
    let (words, _) = block.as_chunks();
    for (word, octets) in work.block.iter_mut().zip(words) {
        *word = u32::from_be_bytes(*octets);
    }
    work.block[15] = hmac_sha256::text_bits(text.len() as u32);
    sha256::compress(&mut work);
    key.finish(&mut work, sha256::compress);
    sha256::to_bytes(work.state)
}

/// The state after two packets.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct PairOutcome {
    reasons: [Reason; 2],
    node: u32,
    granted: Vec<bool>,
    failures: u16,
    /// The greatest stamp.
    last: u64,
}

fn outcome(cpu: &Cpu, reasons: [Reason; 2]) -> PairOutcome {
    let source = Address::from(CLIENT.parse::<std::net::IpAddr>().unwrap());
    let info = PacketInfo {
        source,
        now_ns: NOW.nanos(),
        ..PacketInfo::default()
    };
    let Progress { node, .. } = knock::progress(cpu, &info);
    let failed = lockout::failures(cpu, source, &cpu.tables.config, NOW);
    let grants = cpu.grants.0.iter();
    PairOutcome {
        reasons,
        node,
        granted: grants
            .map(|grant| match grant.0.load() {
                ABSENT => false,
                word => Grant::from_word(word).is_valid(NOW),
            })
            .collect(),
        last: cpu.last.0.load(),
        failures: failed.map_or(0, |failures| failures.count),
    }
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 20_000;
    builder.check(model);
}

/// Returns the outcome of one packet after the other, with the reasons in the order of the arguments.
fn one_after_the_other(
    history: &'static [SentPacket],
    packets: [SentPacket; 2],
    swap: bool,
) -> PairOutcome {
    let found = Arc::new(Mutex::new(None));
    let result = Arc::clone(&found);
    explore(move || {
        let cpu = Cpu::new(&tables(), true);
        history.iter().for_each(|&packet| _ = send(&cpu, packet));
        let [a, b] = packets;
        let reasons = if swap {
            let second = send(&cpu, b);
            [send(&cpu, a), second]
        } else {
            [send(&cpu, a), send(&cpu, b)]
        };
        *result.lock().unwrap() = Some(outcome(&cpu, reasons));
    });
    let found = found.lock().unwrap().take();
    found.unwrap()
}

/// The results of two packets at once in all orders: wrong outcomes, the number of spoiled claims, and the number of
/// orders.
struct Explored {
    wrong: BTreeSet<PairOutcome>,
    spoiled: usize,
    orders: usize,
}

fn at_once(history: &'static [SentPacket], packets: [SentPacket; 2], claims: bool) -> Explored {
    let allowed = [false, true].map(|swap| one_after_the_other(history, packets, swap));
    let wrong = Arc::new(Mutex::new(BTreeSet::new()));
    let orders = Arc::new(AtomicUsize::new(0));
    let spoiled = Arc::new(AtomicUsize::new(0));
    let (all_wrong, all_orders, all_spoiled) = (wrong.clone(), orders.clone(), spoiled.clone());
    explore(move || {
        let cpu = Cpu::new(&tables(), claims);
        history.iter().for_each(|&packet| _ = send(&cpu, packet));
        let before = outcome(&cpu, [Reason::Ordinary; 2]);
        let [a, b] = packets;
        let other = cpu.clone();
        let other = thread::spawn(move || (send(&other, b), other.refused.get()));
        let reason = send(&cpu, a);
        let (other_reason, other_refused) = other.join().unwrap();
        let after = outcome(&cpu, [reason, other_reason]);
        all_orders.fetch_add(1, StdRelaxed);
        let is_spoiled = claims && cpu.refused.get() + other_refused > 0;
        let is_right = if is_spoiled {
            all_spoiled.fetch_add(1, StdRelaxed);
            // A packet without a claim ends the attempt and opens nothing.
            after.node == 0 && after.granted == before.granted
        } else {
            allowed.contains(&after)
        };
        if !is_right {
            all_wrong.lock().unwrap().insert(after);
        }
    });
    Explored {
        wrong: Arc::into_inner(wrong).unwrap().into_inner().unwrap(),
        spoiled: spoiled.load(StdRelaxed),
        orders: orders.load(StdRelaxed),
    }
}

/// Returns whether the stamps were used in their order and the later packet changed the grants first, which no order of
/// one packet after the other does. It harms nobody: both packets are the user's, each was used once.
fn overtook(packets: [SentPacket; 2], outcome: &PairOutcome) -> bool {
    let (Spa(first) | SpaClose(first), Spa(second) | SpaClose(second)) = packets.into() else {
        return false;
    };
    let is_used =
        |reason: &Reason| matches!(reason, Reason::Opened | Reason::Refreshed | Reason::Closed);
    first != second
        && outcome.reasons.iter().all(is_used)
        && outcome.last == STAMP + first.max(second)
}
