//! Packets of fwknop: right ones, and wrong ones of each kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use knock_common::{
    Reason,
    fwknop::{Passphrase, text::username_hash},
    hmac_sha256::HmacKey,
    judge,
    layout::{Features, PortRule, port_index},
    packet::Protocol::{Tcp, Udp},
    spa::{
        layout::{FwknopKey, SourcePrefix, SpaMay, SpaMayKey, SpaTag},
        port::{Otherwise, SpaFormats, SpaPort},
    },
};
use knock_tests::{
    frame::{Frame, eth},
    fwknop::{base64, encrypt, tag, with_digest},
    kernel::{Kernel, compile, now},
    random::{Random, number},
    spa::WALL_CLOCK,
};
use knock_user::{
    compile::Tables,
    kernel::{maps, program::LoadOptions},
};

use crate::{FRAMES, comparable, kernel_keys, keys};

/// Grants last so long that none ends during a run.
const DOORS: &str = r#"
    door = [
        { name = "ssh", knock = ["tcp/7000", "udp/8000"], open = ["tcp/22"], open_for = "1d" },
        { name = "web", knock = ["tcp/7001", "udp/8001"], open = ["tcp/80", "udp/443"], open_for = "1d" },
        { name = "mail", knock = ["tcp/7002", "udp/8002"], open = ["tcp/25"], open_for = "1d" },
    ]
"#;
/// A port for packets of fwknop alone, which drops others; one that passes them; and one for both formats.
const PORTS: [u16; 3] = [62_201, 443, 62_202];
const SOURCES: &[&str] = &["198.51.100.1", "198.51.100.2", "203.0.113.9", "2001:db8::7"];
const PASSPHRASES: [&[u8]; 3] = [
    b"0123456789abcdefghijklmnopqrstuv",
    b"testkey",
    b"a passphrase of 31 characters..",
];
const MESSAGES: &[&str] = &[
    "0.0.0.0,tcp/22",
    "0.0.0.0,tcp/22",
    "0.0.0.0,tcp/22,udp/443",
    "0.0.0.0,tcp/80,udp/443,tcp/22,tcp/22,tcp/22,tcp/22,tcp/22,tcp/22",
    "0.0.0.0,tcp/80,udp/443,tcp/22,tcp/22,tcp/22,tcp/22,tcp/22,tcp/22,tcp/22",
    "203.0.113.9,tcp/22",
    "255.255.255.255,tcp/22",
    "198.51.100.1,tcp/25",
    "0.0.0.0,icmp/0",
    "0.0.0.0,tcp/70000",
    "0.0.0,tcp/22",
    "0.0.0.0",
    "0.0.0.0,none/0",
    "",
];
/// How far times are from the wall clock, in seconds: within the window of 120, and beyond it.
const AHEAD: &[i64] = &[0, 0, 0, 0, 0, -100, 100, -200, 200];
/// Reasons that must occur in a run.
const MAIN: &[Reason] = &[
    Reason::Opened,
    Reason::Refreshed,
    Reason::Ordinary,
    Reason::SpaNoise,
    Reason::SpaStale,
    Reason::SpaReplayed,
    Reason::SpaForged,
    Reason::SpaUnsigned,
    Reason::SpaExpired,
    Reason::SpaNotAllowed,
    Reason::SpaElsewhere,
    Reason::SpaUnreadable,
    Reason::SpaCommand,
    Reason::SpaNat,
];

#[test]
fn the_kernel_and_the_library_agree_about_packets_of_fwknop() {
    let seed = number("KNOCK_SEED").unwrap_or_else(|| now().unwrap().nanos());
    let frames = number("KNOCK_FRAMES").unwrap_or(FRAMES);
    println!("KNOCK_SEED={seed} KNOCK_FRAMES={frames}");
    let tables = tables();
    let sim = tables.simulate();
    sim.wall_clock.set(WALL_CLOCK);
    let mut kernel = Kernel::with(&tables, LoadOptions::default()).unwrap();
    maps::set(kernel.program().ebpf(), "WALL_CLOCK", [(0, WALL_CLOCK)]).unwrap();
    let mut packets = FwknopPackets {
        random: Random::new(seed),
        before: Vec::new(),
    };
    let mut met: BTreeMap<Reason, u64> = BTreeMap::new();
    for judged in 0..frames {
        let frame = packets.next().bytes();
        sim.set_now(now().unwrap());
        let native = judge(&frame[..], &sim);
        let in_kernel = kernel.judge(&frame).unwrap();
        let place = format!("frame {judged} of KNOCK_SEED={seed}: {frame:02x?}");
        assert_eq!(
            in_kernel.reason, native,
            "in the kernel and natively, {place}"
        );
        assert_eq!(in_kernel.verdict, native.verdict(), "{place}");
        assert_eq!(
            comparable(&in_kernel.events),
            comparable(&sim.events.take()),
            "{place}"
        );
        *met.entry(native).or_default() += 1;
        // The two clocks would open the gates at different moments.
        kernel.reset_event_limits().unwrap();
        sim.event_limits
            .iter()
            .for_each(|event_limit| event_limit.set(0));
    }
    for (reason, count) in &met {
        println!("{count:>8} {}", reason.name());
    }
    let (door, none) = (|word| word & 0xffff, |_| 0);
    let allow = kernel.allow().unwrap();
    assert_eq!(kernel_keys(&allow, door), keys(&sim.allow, door));
    let seen = kernel.entries::<SpaTag>("SPA_SEEN").unwrap();
    assert_eq!(kernel_keys(&seen, none), keys(&sim.spa_seen, none));
    if frames >= FRAMES {
        let missed: BTreeSet<_> = MAIN
            .iter()
            .filter(|reason| !met.contains_key(reason))
            .collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
    }
}

fn hmac_key(user: u16) -> Vec<u8> {
    format!("the HMAC key of user {user}").into_bytes()
}

fn passphrase(user: u16) -> &'static [u8] {
    PASSPHRASES[usize::from(user) % PASSPHRASES.len()]
}

/// Users who may ask for anything, by their names, with their addresses, from some sources, and no more.
fn tables() -> Tables {
    let mut tables = compile(DOORS).unwrap();
    tables.features = tables.features.with(Features::SPA).with(Features::FWKNOP);
    let formats = [
        (SpaFormats::FWKNOP, Otherwise::Drop),
        (SpaFormats::FWKNOP, Otherwise::Pass),
        (SpaFormats::FWKNOP.with(SpaFormats::KNOCK), Otherwise::Drop),
    ];
    for (port, (formats, otherwise)) in PORTS.into_iter().zip(formats) {
        let rule = PortRule::spa(SpaPort { formats, otherwise });
        tables.ports.insert((Udp, port), rule);
    }
    for user in 1..=5 {
        let mut key = FwknopKey {
            mac: HmacKey::new(&hmac_key(user)),
            passphrase: Passphrase::new(passphrase(user)).unwrap(),
            not_after_ns: u64::MAX,
            user,
            ..FwknopKey::default()
        };
        match user {
            2 => key.username = username_hash("alice"),
            3 => key.flags = FwknopKey::REQUIRE_SOURCE,
            4 => {
                key.source_count = 2;
                key.sources[0] = prefix("198.51.100.2", 128);
                key.sources[1] = prefix("2001:db8::", 32);
            }
            5 => key.not_after_ns = 1,
            _ => {}
        }
        tables.spa.fwknop_keys.push(key);
        for (protocol, port, entry) in [(Tcp, 22, 0), (Tcp, 80, 1), (Udp, 443, 1)] {
            let may = SpaMay {
                open_for_ms: 86_400_000,
                open_for_max_ms: 2 * 86_400_000,
                entry,
                ..SpaMay::default()
            };
            let key = SpaMayKey::port(user, port_index(protocol, port));
            tables.spa.may.push((key, may));
        }
    }
    tables
}

fn prefix(address: &str, bits: u32) -> SourcePrefix {
    SourcePrefix::new(address.parse::<IpAddr>().unwrap().into(), bits)
}

struct FwknopPackets {
    random: Random,
    /// A packet that was sent before.
    before: Vec<u8>,
}

impl FwknopPackets {
    fn next(&mut self) -> Frame {
        let payload = self.payload();
        let random = &mut self.random;
        let from = random.of(SOURCES);
        let frame = match random.below(8) {
            0 => eth().vlan(7),
            1 => eth().qinq(8).vlan(7),
            _ => eth(),
        };
        let extras = random.below(8);
        let frame = match (from.contains(':'), extras) {
            (false, 0) => frame.ip4(from, "192.0.2.2").options(3),
            (false, 1) => frame.ip4(from, "192.0.2.2").fragment(0, true),
            (false, _) => frame.ip4(from, "192.0.2.2"),
            (true, 0) => frame.ip6(from, "2001:db8::2").hop_by_hop().dest_opts(2),
            (true, _) => frame.ip6(from, "2001:db8::2"),
        };
        let frame = frame.datagram(40_000, random.of(&PORTS), &payload);
        match random.one_in(40) {
            true => frame.truncate(1 + random.below(20)),
            false => frame,
        }
    }

    /// Returns a packet that is right, or wrong in one way.
    fn payload(&mut self) -> Vec<u8> {
        let text = self.text();
        let random = &mut self.random;
        let user = random.of(&[1, 1, 1, 1, 2, 3, 4, 5, 6]);
        let salt = random.next().to_le_bytes();
        let mut whole = encrypt(passphrase(user), salt, &text);
        if random.one_in(10) {
            // Under a right HMAC: a character changed, one left out, one added, and the padding of base64.
            match random.below(4) {
                0 => {
                    let at = 10 + random.below(whole.len() - 10);
                    let other = random.of(&["A", "/", "+", "9", "-", "=", " "]);
                    whole.replace_range(at..=at, other);
                }
                1 => drop(whole.pop()),
                2 => whole.push('A'),
                _ => whole += "==",
            }
        }
        let mut packet = [
            &whole.as_bytes()[10..],
            tag(&hmac_key(user), &whole).as_bytes(),
        ]
        .concat();
        match random.below(12) {
            0 => packet.clone_from(&self.before),
            1 => {
                let at = random.below(packet.len());
                packet[at] ^= 1 << random.below(8);
            }
            2 => {
                let at = random.below(packet.len());
                packet[at] = random.of(b"AZaz09+/=-_\n\0\xff");
            }
            3 => packet.truncate(random.below(packet.len() + 1)),
            4 => packet.extend(vec![b'A'; random.below(300)]),
            5 => drop(packet.splice(0..0, *b"U2FsdGVkX1")),
            _ => {}
        }
        self.before.clone_from(&packet);
        packet
    }

    /// Returns a text with its digest.
    fn text(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        // The clocks agree to the second.
        let wall_s = (now().unwrap().nanos() + WALL_CLOCK) / 1_000_000_000;
        let time = wall_s.saturating_add_signed(random.of(AHEAD));
        let name = random.of(&["alice", "alice", "bob", "", "x"]);
        let name = base64(if name == "x" {
            &[b'x'; 64]
        } else {
            name.as_bytes()
        });
        let message = base64(random.of(MESSAGES).as_bytes());
        let kind = random.of(&[1, 1, 1, 1, 1, 1, 3, 3, 3, 0, 2, 4, 5, 6, 7, 99]);
        let rest = match kind {
            2 | 5 => format!(":{}", base64(b"10.0.0.1,22")),
            4 | 6 => format!(":{}:60", base64(b"10.0.0.1,22")),
            3 => format!(":{}", random.of(&[0, 5, 60, 9_999_999])),
            _ => String::new(),
        };
        let text = format!("1234567890123456:{name}:{time}:3.0.0:{kind}:{message}{rest}");
        let mut text = with_digest(&text).into_bytes();
        match random.below(16) {
            0 => {
                let at = random.below(text.len());
                text[at] = random.of(b":,/0129AZ\0\xff");
            }
            1 => text.truncate(random.below(text.len())),
            2 => text.extend(b":60"),
            _ => {}
        }
        text
    }
}
