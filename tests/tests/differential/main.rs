//! The same frames, judged in the kernel and natively: the two must not differ.
//!
//! `KNOCK_FRAMES` is the number of frames. `KNOCK_SEED` repeats a run.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod fwknop;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    hash::Hash,
    net::IpAddr,
    time::Instant,
};

use aya::maps::Array;
use bytemuck::{Pod, bytes_of};
use knock_common::{
    Address, Reason, Verdict,
    answer::{Memory, rewrite_with},
    automaton::Progress,
    bare_packet::BarePacket,
    env::Table as _,
    event::Event,
    judge,
    layout::{LOCKOUT_BUCKETS, WAYS},
    lockout::MS_BITS,
    packet::{self, Protocol},
    sim::{Cells, LockoutKey, Sim, WordMap},
    spa::{
        layout::{SpaKey, SpaKeyId},
        port::Otherwise,
        seal::{Content, PACKET_BYTES},
    },
    time::TICK_BITS,
};
use knock_tests::{
    entry::Entry,
    frame::{ACK, FIN, Frame, PSH, RST, SYN, SYN_ACK, eth},
    kernel::{FRAME_LEAST, Kernel, compile, now},
    random::{Random, number},
    shapes, spa,
};
use knock_user::kernel::{maps, program::LoadOptions};

const FRAMES: u64 = 20_000;

/// Windows and grants last so long that a few milliseconds between the two clocks never count, and
/// doors overlap in every way that there is.
const CONFIG: &str = r#"
    protect = ["udp/161"]
    trust = ["10.0.0.0/8", "8.0.9.0/24", "fd00::/8", "2001:db8:86dd:9::/64"]
    exempt = ["tcp/80"]
    decoys = { ports = ["tcp/2222", "udp/2223"] }
    lockout = { failures = 3, for = "1d" }
    door = [
        { name = "three", knock = ["tcp/7000", "udp/8000", "tcp/9000"], open = ["tcp/22"], sequence_timeout = "30m", open_for = "1d" },
        { name = "beginning", knock = ["tcp/7000", "udp/8000", "tcp/9000", "tcp/6000"], open = ["udp/53"], sequence_timeout = "30m", open_for = "1d" },
        { name = "end", knock = ["udp/8000", "tcp/9000"], open = ["tcp/23"], sequence_timeout = "30m", open_for = "1d" },
        { name = "one", knock = ["udp/6001"], open = ["tcp/24"], sequence_timeout = "30m", open_for = "1d", grant_prefix = { ipv4 = 24, ipv6 = 64 } },
        { name = "flags", knock = ["tcp/9100", "tcp/8100", "tcp/9100"], open = ["tcp/22"], tcp_flags = "fin,!syn", sequence_timeout = "30m", open_for = "2d" },
        { name = "close", knock = ["tcp/9001", "udp/8000"], close = ["tcp/22"], sequence_timeout = "30m" },
        { name = "target", knock = ["tcp/7000", "udp/8001"], open = ["tcp/22"], target = "192.0.2.3", sequence_timeout = "30m", open_for = "1d" },
        { name = "target6", knock = ["tcp/7000", "udp/8001"], open = ["tcp/23"], target = "2001:db8::3", sequence_timeout = "30m", open_for = "1d" },
    ]
"#;

/// Reasons that must occur in a run, since it would compare too little without them.
const MAIN: &[Reason] = &[
    Reason::NotIp,
    Reason::OtherProtocol,
    Reason::LaterFragment,
    Reason::Ordinary,
    Reason::Trusted,
    Reason::Flow,
    Reason::Granted,
    Reason::OtherFlags,
    Reason::StrayPort,
    Reason::Truncated,
    Reason::TinyFragment,
    Reason::ExtensionsTooLong,
    Reason::VlanTooDeep,
    Reason::BadHeader,
    Reason::NoGrant,
    Reason::FirstKnock,
    Reason::NextKnock,
    Reason::Duplicate,
    Reason::Restarted,
    Reason::WrongKnock,
    Reason::OutOfSequence,
    Reason::Decoy,
    Reason::LockedOut,
    Reason::Opened,
    Reason::Refreshed,
    Reason::Closed,
    Reason::SpaNoise,
    Reason::SpaStale,
    Reason::SpaUnknown,
    Reason::SpaReplayed,
    Reason::SpaForged,
    Reason::SpaNotAllowed,
    Reason::SpaElsewhere,
    Reason::SpaUnreadable,
];

const V4: &[&str] = &["198.51.100.1", "198.51.100.2", "198.51.100.3", "10.1.2.3"];
const V6: &[&str] = &[
    "2001:db8:1::1",
    "2001:db8:1::2",
    "fd00::7",
    "::ffff:10.1.2.3",
];
/// Sources whose packets a test run at TC takes for what they are: see [`Entry::input`].
const V4_AT_TC: &[&str] = &["8.0.100.1", "8.0.100.2", "8.0.100.3", "8.0.9.3"];
const V6_AT_TC: &[&str] = &[
    "2001:db8:86dd:1::1",
    "2001:db8:86dd:1::2",
    "2001:db8:86dd:9::7",
];
const TO_V4: &[&str] = &["192.0.2.2", "192.0.2.3"];
const TO_V6: &[&str] = &["2001:db8::2", "2001:db8::3"];
const TCP: &[u16] = &[
    22, 23, 24, 80, 1234, 2222, 6000, 7000, 8000, 8100, 9000, 9001, 9100,
];
const UDP: &[u16] = &[53, 161, 1234, 2223, 6001, 7000, 8000, 8001];
const FLAGS: &[u8] = &[
    SYN,
    SYN,
    SYN,
    ACK,
    SYN_ACK,
    FIN,
    FIN | ACK,
    RST,
    PSH | ACK,
    0,
];
/// Sequences, so that doors open more often than chance would have it.
const WALKS: &[&[(bool, u16)]] = &[
    &[
        (true, 7000),
        (false, 8000),
        (true, 9000),
        (true, 6000),
        (true, 22),
    ],
    &[(false, 8000), (true, 9000), (true, 23)],
    &[(true, 9100), (true, 8100), (true, 9100), (true, 22)],
    &[(true, 9001), (false, 8000), (true, 22)],
    &[(true, 7000), (false, 8001), (true, 22)],
    &[(false, 6001), (false, 6001), (true, 24)],
];

/// Ports for single packet authorization: one that drops other packets, one that passes them, and one that is
/// protected.
const SPA: &[u16] = &[62_201, 443, 161];
/// How far stamps are from the wall clock, in seconds: within and beyond the window of 30.
const AHEAD: &[i64] = &[0, 0, 0, 0, 0, 0, 0, -10, 10, -60, 60];

/// Reasons that packets without an Ethernet header do not have.
const OF_ETHERNET: &[Reason] = &[Reason::NotIp, Reason::VlanTooDeep];

#[test]
fn the_kernel_and_the_library_agree() {
    agree(Entry::Xdp, MAIN);
}

#[test]
fn they_agree_about_frames_at_tc() {
    agree(Entry::Tc, MAIN);
}

#[test]
fn they_agree_about_packets_without_ethernet() {
    let main: Vec<_> = without(MAIN, OF_ETHERNET);
    agree(Entry::Bare, &main);
}

#[test]
fn they_agree_about_packets_without_ethernet_at_tc() {
    let main: Vec<_> = without(MAIN, OF_ETHERNET);
    agree(Entry::Ip, &main);
}

fn without(all: &[Reason], some: &[Reason]) -> Vec<Reason> {
    let others = all.iter().filter(|reason| !some.contains(reason));
    others.copied().collect()
}

/// Judges frames by an entry of the object and natively; these reasons must occur.
fn agree(entry: Entry, main: &[Reason]) {
    let seed = number("KNOCK_SEED").unwrap_or_else(|| now().unwrap().nanos());
    let frames = number("KNOCK_FRAMES").unwrap_or(FRAMES);
    println!("KNOCK_SEED={seed} KNOCK_FRAMES={frames}");
    let mut tables = compile(CONFIG).unwrap();
    let protected = tables.ports[&(Protocol::Udp, 161)].port_group;
    let kinds = [
        Otherwise::Drop,
        Otherwise::Pass,
        Otherwise::Protected(protected),
    ];
    for (&port, otherwise) in SPA.iter().zip(kinds) {
        spa::add_port(&mut tables, port, spa::port(otherwise));
    }
    spa::add_user(&mut tables, 1, 0, &["three", "end", "close"]);
    spa::add_user(&mut tables, 2, SpaKey::FOR_OTHERS, &["target", "three"]);
    let mut sim = tables.simulate();
    sim.wall_clock.set(spa::WALL_CLOCK);
    for (name, _) in &tables.spa.keys {
        sim.spa_last.insert(&name.id, 0);
    }
    let mut kernel = Kernel::with_entry(&tables, LoadOptions::default(), entry).unwrap();
    spa::start(&mut kernel, &tables).unwrap();
    sim.lockout_key = LockoutKey(kernel.lockouts().unwrap()[LOCKOUT_BUCKETS as usize]);
    let mut stream = RandomFrames::new(seed, entry);
    let mut met: BTreeMap<Reason, u64> = BTreeMap::new();
    let mut native_only = 0;
    let mut judged = 0;
    let started = Instant::now();
    while judged < frames {
        let frame = stream.next();
        let Some(input) = entry.input(&frame) else {
            continue;
        };
        sim.set_now(now().unwrap());
        let native = match entry.is_bare() {
            true => judge(&BarePacket::new(input), &sim),
            false => judge(&frame[..], &sim),
        };
        if input.len() < FRAME_LEAST {
            if !entry.is_bare() {
                assert_eq!(native, Reason::Truncated, "{frame:02x?}");
            }
            sim.events.take();
            native_only += 1;
            continue;
        }
        let place = format!("frame {judged} of KNOCK_SEED={seed}: {frame:02x?}");
        let in_kernel = kernel.judge(&frame);
        let in_kernel = in_kernel.unwrap_or_else(|error| panic!("{error:#}: {place}"));
        assert_eq!(
            in_kernel.reason, native,
            "in the kernel and natively, {place}"
        );
        let answered = sim.answer.take().is_some_and(|answer| {
            let words = sim.spa_answer.get();
            let mut frame = frame.clone();
            if entry.is_bare() {
                // The packet was judged as one to a host, since it has no addresses of Ethernet.
                for place in [0, 6] {
                    frame[place] &= !1;
                }
            }
            rewrite_with(&mut Memory(&mut frame), answer, &words).is_some()
        });
        let verdict = match answered {
            true if entry.answers() => Verdict::Answer,
            true => Verdict::Drop,
            false => native.verdict(),
        };
        assert_eq!(in_kernel.verdict, verdict, "{place}");
        assert_eq!(
            comparable(&in_kernel.events),
            comparable(&sim.events.take()),
            "{place}"
        );
        *met.entry(native).or_default() += 1;
        judged += 1;
        // The two clocks would open the gates at different moments.
        kernel.reset_event_limits().unwrap();
        sim.event_limits
            .iter()
            .for_each(|event_limit| event_limit.set(0));
        if judged % 20 == 0 {
            make_time_pass(&mut kernel, &sim, &mut stream.random);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{frames} frames, and {native_only} too short for the kernel, in {seconds:.1} s: {:.0} a second",
        frames as f64 / seconds
    );
    for (reason, count) in &met {
        println!("{count:>8} {}", reason.name());
    }
    same_tables(&mut kernel, &sim);
    if frames >= FRAMES {
        let missed: Vec<_> = main
            .iter()
            .filter(|reason| !met.contains_key(reason))
            .collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
    }
}

/// The headers of a frame up to its ports.
#[derive(Clone, Copy)]
struct Way {
    from: &'static str,
    to: &'static str,
    v6: bool,
    source_port: u16,
    has_options: bool,
}

impl Way {
    fn random(random: &mut Random, entry: Entry) -> Self {
        let v6 = random.one_in(2);
        let is_at_tc = entry == Entry::Ip;
        let (from, to) = match (v6, is_at_tc) {
            (false, false) => (V4, TO_V4),
            (true, false) => (V6, TO_V6),
            (false, true) => (V4_AT_TC, TO_V4),
            (true, true) => (V6_AT_TC, TO_V6),
        };
        Self {
            from: random.of(from),
            to: random.of(to),
            v6,
            source_port: random.of(&[40_000, 40_001]),
            has_options: is_at_tc && !v6,
        }
    }

    /// Returns a frame to a port, with random headers around it.
    fn frame(self, tcp: bool, port: u16, flags: u8, random: &mut Random) -> Frame {
        let mut frame = match random.below(8) {
            0 => eth().vlan(7),
            1 => eth().qinq(8).vlan(7),
            _ => eth(),
        };
        if random.one_in(20) {
            frame = frame.group();
        }
        frame = match self.v6 {
            false => frame.ip4(self.from, self.to),
            true => frame.ip6(self.from, self.to),
        };
        let extras = random.below(16);
        if self.has_options && extras != 0 {
            frame = frame.options(1);
        }
        frame = match (self.v6, extras) {
            (false, 0) => frame.options(3),
            (false, 1) => frame.fragment(0, true),
            (true, 0) => frame.hop_by_hop().dest_opts(2),
            (true, 1) => frame.fragment6(0, true).ah(2),
            (true, 2) => frame.routing(),
            _ => frame,
        };
        match tcp {
            true => frame.tcp(self.source_port, port, flags),
            false => frame.udp(self.source_port, port),
        }
    }
}

/// Changes the source of a shape to one with which this entry can be tested.
fn runnable(mut frame: Vec<u8>, entry: Entry) -> Vec<u8> {
    if entry == Entry::Ip
        && let Some((network, is_v6)) = packet::network(&frame[..])
        && let Some(source) = frame.get_mut(network + 12..network + 14)
    {
        source.copy_from_slice(&if is_v6 { [0x86, 0xdd] } else { [8, 0] });
    }
    frame
}

/// Frames one after another: sequences, single packets, shapes, and all of them damaged.
struct RandomFrames {
    random: Random,
    entry: Entry,
    /// A packet that was sent before.
    before: [u8; PACKET_BYTES],
    shapes: Vec<Vec<u8>>,
    /// The rest of a sequence.
    walk: Vec<(Way, bool, u16)>,
}

impl RandomFrames {
    fn new(seed: u64, entry: Entry) -> Self {
        let shapes = shapes::all().into_iter();
        Self {
            random: Random::new(seed),
            entry,
            before: [0; PACKET_BYTES],
            shapes: shapes.map(|s| runnable(s.frame.bytes(), entry)).collect(),
            walk: Vec::new(),
        }
    }

    fn next(&mut self) -> Vec<u8> {
        if self.random.one_in(5) {
            let mut bytes = self.spa();
            if self.random.one_in(20) {
                self.damage(&mut bytes);
            }
            return bytes;
        }
        let entry = self.entry;
        let random = &mut self.random;
        if random.one_in(8) {
            let way = Way::random(random, entry);
            let steps = random.of(WALKS).iter().rev();
            self.walk = steps.map(|&(tcp, port)| (way, tcp, port)).collect();
        }
        let mut bytes = match random.below(10) {
            0..=4 if !self.walk.is_empty() => {
                let (way, tcp, port) = self.walk.pop().unwrap();
                let flags = match port {
                    8100 | 9100 => FIN,
                    _ => SYN,
                };
                // Undamaged, for the most part: a sequence needs several in a row.
                let bytes = way.frame(tcp, port, flags, random).bytes();
                if !random.one_in(20) {
                    return bytes;
                }
                bytes
            }
            0..=7 => {
                let tcp = random.one_in(2);
                let port = random.of(if tcp { TCP } else { UDP });
                let flags = random.of(FLAGS);
                Way::random(random, entry)
                    .frame(tcp, port, flags, random)
                    .bytes()
            }
            _ => self.shapes[random.below(self.shapes.len())].clone(),
        };
        self.damage(&mut bytes);
        bytes
    }

    /// Returns a SPA packet that is right, or wrong in one way.
    fn spa(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let way = Way::random(random, self.entry);
        let client = spa::client(random.of(&[1, 1, 1, 2, 2, 3]));
        let door = random.of(&["three", "end", "close", "target", "nothing"]);
        let ahead = random.of(AHEAD) * 1_000_000_000;
        let plain = spa::content(spa::door(door)).unwrap();
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let content = Content {
            stamp: plain.stamp.wrapping_add_signed(ahead),
            source: match random.below(8) {
                0..4 => Address::ANY,
                4..6 => address(way.from),
                _ => address(random.of(V4)),
            },
            seconds: random.of(&[0, 86_400, u32::MAX]),
            action: random.of(&[0, 0, 0, 0, 1, 0x80, 0x81, 2]),
            reserved: random.of(&[[0; 3], [0; 3], [0; 3], [0; 3], [1, 0, 0]]),
            ..plain
        };
        let mut packet = client.seal(&content);
        match random.below(8) {
            0 => packet = self.before,
            1 => packet[random.below(PACKET_BYTES)] ^= 1 << random.below(8),
            2 => {
                packet[random.below(64)] ^= 1 << random.below(8);
                client.close_gate(&mut packet);
            }
            _ => {}
        }
        self.before = packet;
        let mut payload = packet.to_vec();
        match random.below(8) {
            0 => payload.truncate(random.below(PACKET_BYTES)),
            1 => payload.extend(vec![7; random.below(200)]),
            _ => {}
        }
        let frame = eth();
        let frame = match (way.v6, random.below(8)) {
            (false, 0) => frame.vlan(7).ip4(way.from, way.to).options(3),
            (false, _) if way.has_options => frame.ip4(way.from, way.to).options(1),
            (false, _) => frame.ip4(way.from, way.to),
            (true, 0) => frame.qinq(8).vlan(7).ip6(way.from, way.to).hop_by_hop(),
            (true, _) => frame.ip6(way.from, way.to),
        };
        let port = random.of(SPA);
        frame.datagram(way.source_port, port, &payload).bytes()
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        // Most of the fields that matter are near the front.
        let place = |random: &mut Random, bytes: &[u8]| {
            let end = random.of(&[16, 24, 64, bytes.len()]);
            random.below(end.min(bytes.len()))
        };
        if bytes.is_empty() {
            return;
        }
        match random.below(8) {
            0 => {
                let place = place(random, bytes);
                bytes[place] ^= 1 << random.below(8);
            }
            1 => {
                for _ in 0..=random.below(4) {
                    let place = place(random, bytes);
                    bytes[place] = random.next() as u8;
                }
            }
            2 => {
                let place = place(random, bytes);
                bytes[place] = random.of(&[0, 6, 17, 43, 44, 51, 60, 255]);
            }
            3 => bytes.truncate(random.below(bytes.len() + 1)),
            4 => {
                let more = random.below(32);
                bytes.extend((0..more).map(|_| random.next() as u8));
            }
            _ => {}
        }
    }
}

/// Ends a grant or forgets the failures of a source, in the kernel and natively.
fn make_time_pass(kernel: &mut Kernel, sim: &Sim, random: &mut Random) {
    fn end<K: Copy + Eq + Hash + Pod>(
        kernel: &mut Kernel,
        name: &str,
        words: &WordMap<K>,
        random: &mut Random,
    ) {
        let mut keys: Vec<K> = words.entries.borrow().keys().copied().collect();
        // Sorted, so that a seed repeats the order.
        keys.sort_by(|a, b| bytes_of(a).cmp(bytes_of(b)));
        if !keys.is_empty() {
            let key = random.of(&keys);
            kernel.write(name, [(key, 0)]).unwrap();
            words.entries.borrow()[&key].set(0);
        }
    }
    if random.one_in(2) {
        end(kernel, "ALLOW", &sim.allow, random);
    } else {
        let mut buckets: Vec<u32> = sim.lockouts.borrow().keys().copied().collect();
        buckets.sort_unstable();
        if !buckets.is_empty() {
            let bucket = random.of(&buckets);
            kernel.set_lockouts([(bucket, [0; WAYS])]).unwrap();
            sim.lockouts.borrow()[&bucket]
                .iter()
                .for_each(|cell| cell.set(0));
        }
    }
}

/// Returns the fields of an event without the times and the interface, which a packet in memory does not have.
fn comparable(events: &[Event]) -> Vec<Event> {
    let timeless = |event: &Event| Event {
        at_ns: 0,
        until_ms: 0,
        interface: 0,
        ..*event
    };
    events.iter().map(timeless).collect()
}

/// Returns the keys of a native table, each with the part of its word that does not depend on the clock.
fn keys<K: Copy + Debug + Eq + Hash>(
    words: &WordMap<K>,
    timeless: fn(u64) -> u64,
) -> BTreeSet<String> {
    let entries = words.entries.borrow();
    let texts = entries
        .iter()
        .map(|(key, word)| format!("{key:?} {}", timeless(word.get())));
    texts.collect()
}

/// Returns the keys of a table in the kernel, each with that part of its word.
fn kernel_keys<K: Debug>(entries: &[(K, u64)], timeless: fn(u64) -> u64) -> BTreeSet<String> {
    let texts = entries
        .iter()
        .map(|(key, word)| format!("{key:?} {}", timeless(*word)));
    texts.collect()
}

fn same_tables(kernel: &mut Kernel, sim: &Sim) {
    let node = |word| Progress::from_word(word).node.into();
    // The door of a grant, the count of failures; a flow has nothing but its time.
    let low = |word| word & 0xffff;
    let none = |_| 0;
    let progress = kernel.progress().unwrap();
    assert_eq!(kernel_keys(&progress, node), keys(&sim.progress, node));
    let allow = kernel.allow().unwrap();
    assert_eq!(kernel_keys(&allow, low), keys(&sim.allow, low));
    let flows = kernel.flows().unwrap();
    assert_eq!(kernel_keys(&flows, none), keys(&sim.flows, none));
    let last = kernel.entries::<SpaKeyId>("SPA_LAST").unwrap();
    let whole = |word| word;
    assert_eq!(kernel_keys(&last, whole), keys(&sim.spa_last, whole));
    let firsts = same_cells(kernel, "FIRST_KNOCKS", &sim.buckets.borrow(), TICK_BITS);
    let failed = same_cells(kernel, "LOCKOUTS", &sim.lockouts.borrow(), MS_BITS);
    println!(
        "{firsts} first knocks, {} attempts, {} grants, {} flows, {failed} failed sources: the same in both",
        progress.len(),
        allow.len(),
        flows.len(),
    );
}

/// Compares buckets of cells, but for the times in their low bits; returns how many are in use.
fn same_cells(
    kernel: &mut Kernel,
    name: &str,
    buckets: &HashMap<u32, Cells>,
    time_bits: u32,
) -> usize {
    let map = maps::map(kernel.program().ebpf(), name).unwrap();
    let map = Array::<_, [u64; WAYS]>::try_from(map).unwrap();
    let timeless = |cell: u64| cell >> time_bits;
    let mut count = 0;
    for (index, cells) in buckets {
        let native: Vec<u64> = cells.iter().map(|cell| timeless(cell.get())).collect();
        let in_kernel = map.get(index, 0).unwrap().map(timeless);
        assert_eq!(&in_kernel[..], &native[..], "{name}, bucket {index}");
        count += native.iter().filter(|cell| **cell != 0).count();
    }
    count
}
