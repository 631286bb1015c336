//! No exchange of answers continues without end: a forged packet makes two hosts, or this one
//! and a service elsewhere, exchange a few packets and no more (CVE-2024-2169).
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::VecDeque;

use knock_common::{
    Bytes as _, Verdict,
    answer::{self, Memory},
    judge,
    packet::{Protocol, parse},
    sim::Sim,
    time::Moment,
};
use knock_tests::{
    frame::{ACK, FIN, PSH, RST, SYN, SYN_ACK, eth},
    kernel::compile,
};

/// Every kind of answer.
const DOORS: &str = r#"
    decoys = { ports = ["udp/2223"] }
    [[door]]
    name = "one"
    reply = true
    knock = ["udp/7000"]
    open = ["tcp/22"]
    [[door]]
    name = "brief"
    reply = true
    knock = ["udp/7001"]
    open = ["tcp/23"]
    open_for = "1s"
    [[door]]
    name = "two"
    reply = true
    knock = ["udp/7002", "tcp/7500", "udp/7003"]
    open = ["tcp/24"]
    [[door]]
    name = "proved"
    verify = "handshake"
    reply = true
    knock = ["tcp/7004", "tcp/7501", "tcp/7005"]
    open = ["tcp/25"]
"#;
/// Ports of the forged packets: knocks, a decoy, what is protected, services, and others.
const PORTS: [u16; 14] = [
    7, 19, 22, 53, 1023, 2223, 7000, 7001, 7002, 7003, 7004, 7005, 40_000, 65_535,
];
/// The most frames of an exchange, with the forged one: a SYN, a SYN with ACK, the stack's RST.
const MOST: usize = 4;
const ADDRESSES: [[&str; 2]; 2] = [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]];

#[test]
fn no_exchange_of_answers_continues() {
    let others = [
        ("two hosts with the same doors", Some(DOORS), Services::None),
        (
            "the other has the ports of the first as services",
            None,
            Services::All,
        ),
        ("both", Some(DOORS), Services::All),
        ("the other refuses", None, Services::None),
    ];
    let mut opened = 0;
    for (name, config, services) in others {
        for [here, there] in ADDRESSES {
            let hosts = [
                LoopHost::new(Some(DOORS), Services::None),
                LoopHost::new(config, services),
            ];
            let mut now = Moment::from_nanos(1 << 40);
            for from in PORTS {
                for to in PORTS {
                    for flags in [
                        None,
                        Some(SYN),
                        Some(SYN_ACK),
                        Some(ACK),
                        Some(FIN | ACK),
                        Some(RST),
                        Some(PSH | ACK),
                    ] {
                        // Grants end in between, so that doors can be opened again.
                        now = now.after_millis(60_000);
                        let way = match here.contains(':') {
                            true => eth().ip6(there, here),
                            false => eth().ip4(there, here),
                        };
                        let mut frame = match flags {
                            Some(flags) => way.tcp(from, to, flags).bytes(),
                            None => way.udp(from, to).bytes(),
                        };
                        frame.extend([0x33; 8]);
                        let count = exchanged(&hosts, frame, now);
                        assert!(
                            count <= MOST,
                            "{name}: {there} port {from} to port {to}, flags {flags:02x?}: {count}"
                        );
                        opened += count;
                    }
                }
            }
        }
    }
    println!("{opened} frames");
}

/// The services of a host besides `knock-user`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Services {
    /// None: TCP is refused.
    None,
    /// Each UDP port that the program lets pass answers each datagram, as echo, chargen or a broken
    /// DNS server do, and each TCP port is open.
    All,
}

struct LoopHost {
    /// The program, if it runs here.
    world: Option<Sim>,
    services: Services,
}

impl LoopHost {
    fn new(config: Option<&str>, services: Services) -> Self {
        let world = config.map(|config| compile(config).unwrap().simulate());
        Self { world, services }
    }

    /// Returns the frames that a host sends when it has received a frame.
    fn receive(&self, frame: &[u8], now: Moment) -> Option<Vec<u8>> {
        if let Some(world) = &self.world {
            world.set_now(now);
            world.answer.set(None);
            let reason = judge(frame, world);
            if reason.verdict() != Verdict::Pass {
                return turned(frame, world.answer.take()?);
            }
        }
        self.stack(frame)
    }

    /// Returns the frames that it sends when the program has passed a frame.
    fn stack(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let segment = parse(frame).unwrap();
        let is_open = self.services == Services::All;
        let flags = match segment.protocol {
            Protocol::Udp if is_open => return Some(back(frame, 0)),
            Protocol::Udp => return None,
            Protocol::Tcp if segment.flags & RST != 0 => return None,
            Protocol::Tcp if is_open && segment.flags & (SYN | ACK) == SYN => SYN_ACK,
            Protocol::Tcp => RST | ACK,
        };
        Some(back(frame, flags))
    }
}

fn turned(frame: &[u8], answer: answer::Answer) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    let mut memory = Memory(&mut frame);
    answer::rewrite_as_reply(&mut memory, answer)?;
    Some(memory.0.to_vec())
}

/// Returns the frame with both ends exchanged, and other TCP flags.
fn back(frame: &[u8], flags: u8) -> Vec<u8> {
    let mut back = frame.to_vec();
    let v4 = frame.be16(12) == Some(0x0800);
    let (addresses, length, ports) = if v4 { (26, 4, 34) } else { (22, 16, 54) };
    for (at, length) in [(0, 6), (addresses, length), (ports, 2)] {
        let (one, other) = back[at..at + 2 * length].split_at_mut(length);
        one.swap_with_slice(other);
    }
    if parse(frame).unwrap().protocol == Protocol::Tcp {
        back[ports + 13] = flags;
    }
    back
}

/// Returns the number of frames of an exchange that a frame to the first host causes, up to a bound.
fn exchanged(hosts: &[LoopHost; 2], first: Vec<u8>, now: Moment) -> usize {
    let mut count = 0;
    let mut waiting = VecDeque::from([(0, first)]);
    while let Some((to, frame)) = waiting.pop_front() {
        count += 1;
        if count > 10 * MOST {
            break;
        }
        if let Some(sent) = hosts[to].receive(&frame, now) {
            assert!(sent.len() <= frame.len().max(60), "an answer is longer");
            waiting.push_back((1 - to, sent));
        }
    }
    count
}
