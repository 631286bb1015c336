//! Packets that no connecting client sends, and the answers to them.

use knock_tests::{
    daemon::Daemon,
    net::{self, Family, Net},
    path::Path,
    random::Random,
    server::Server,
    source::Source,
    wait,
    wire::{self, Wire},
};
use serde_json::json;

use crate::{
    ACK, CONFIG, DECOYS, FIN_ACK, KNOCKS, RST, SOURCE_PORT, SSH, SYN, SYN_ACK, catch_up, connects,
    event_names, test,
};

/// Packets with the forged address of an honest source neither advance nor end its attempt.
#[test]
fn forged_packets_change_nothing() {
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, CONFIG);
        let mut random = Random::new(1);
        for family in Family::ALL {
            let row = family.to_string();
            let source = net.new_source(family);
            let forger = Forger::of(net, &source);
            let mut forge = || {
                for port in KNOCKS.into_iter().chain(DECOYS) {
                    forger.send(port, SYN, 1, 0);
                    for _ in 0..50 {
                        forger.send(port, ACK, 2, random.next() as u32);
                    }
                    forger.send(port, FIN_ACK, 2, random.next() as u32);
                    forger.send(port, RST, 2, 0);
                    forger.send(port, SYN_ACK, 2, random.next() as u32);
                }
                // Or the honest packet behind them finds no room on the link.
                catch_up(net, &daemon, family);
            };
            forge();
            source.finds_closed(SSH, &row);
            for port in KNOCKS {
                connects(&source, port, &row);
                forge();
            }
            drop(source.finds_open(SSH, &row));
        }
        daemon.wait_for_event(&json!({"reason": "bad-cookie"}));
        daemon.stop();
    });
}

#[test]
fn repeated_frames_knock_once() {
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, CONFIG);
        for family in Family::ALL {
            for times in [1, 2, 5] {
                let row = format!("{times} times, {family}");
                let source = net.new_source(family);
                let by_hand = ByHand {
                    wire: Wire::open(&net.client),
                    path: source.path(),
                    times,
                };
                for port in KNOCKS {
                    let number = by_hand.asks(port);
                    by_hand.wire.seen();
                    by_hand.proves(port, number);
                    assert_eq!(by_hand.gets(port, FIN_ACK), [number, 1001], "{row}");
                    // Its FIN comes later, and again, and changes nothing.
                    by_hand.send(port, FIN_ACK, 1001, number.wrapping_add(1));
                    by_hand.gets(port, RST);
                }
                drop(source.finds_open(SSH, &row));
            }
        }
        daemon.stop();
    });
}

/// In a VLAN, answers have the tags of their packets. The kernel removes the outer one before a socket receives the
/// frame; `verdicts` has the frames unchanged.
#[test]
fn answers_stay_in_their_vlan() {
    const OUTER: (u16, u16) = (0x88a8, 7);
    const INNER: (u16, u16) = (0x8100, 8);
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, CONFIG);
        for family in Family::ALL {
            for (name, tags, seen) in [
                ("one tag", &[INNER][..], &[][..]),
                ("two tags", &[OUTER, INNER], &[INNER]),
            ] {
                let row = format!("{name}, {family}");
                let source = net.new_source(family);
                let path = source.path();
                let wire = Wire::open(&net.client);
                let send = |port, flags, sequence, acknowledged| {
                    let frame = segment(path, port, flags, sequence, acknowledged);
                    wire.send(&wire::tagged(&frame, tags));
                };
                for port in KNOCKS {
                    send(port, SYN, 1000, 0);
                    let plain = gets(&wire, port, SYN_ACK, &row);
                    let expected = segment(path.back(), 0, 0, 0, 0);
                    let expected = wire::tagged(&expected, seen);
                    let network = 14 + 4 * seen.len();
                    assert_eq!(plain.len(), expected.len(), "{row}");
                    assert_eq!(plain[12..network], expected[12..network], "{row}");
                    let [cookie, _] = numbers(&plain);
                    send(port, ACK, 1001, cookie.wrapping_add(1));
                    gets(&wire, port, FIN_ACK, &row);
                }
                drop(source.finds_open(SSH, &row));
            }
        }
        daemon.stop();
    });
}

/// ACKs are knocks in the order in which they arrive, independent of the order of the SYNs.
#[test]
fn knocks_count_in_the_order_of_their_completed_handshakes() {
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, CONFIG);
        for family in Family::ALL {
            for (name, order, opens) in [
                ("in order", &[0, 1, 2][..], true),
                ("out of order", &[1, 0, 2], false),
                ("one again, later", &[0, 1, 0, 2], false),
                ("one again, at once", &[0, 0, 1, 1, 2], true),
                ("again after a wrong one", &[0, 2, 0, 1, 2], true),
            ] {
                let row = format!("{name}, {family}");
                let source = net.new_source(family);
                let by_hand = ByHand {
                    wire: Wire::open(&net.client),
                    path: source.path(),
                    times: 1,
                };
                // The SYNs have another order than the ACKs.
                let mut numbers = KNOCKS.map(|port| (port, 0));
                for (port, number) in numbers.iter_mut().rev() {
                    *number = by_hand.asks(*port);
                }
                for &place in order {
                    let (port, number) = numbers[place];
                    by_hand.proves(port, number);
                }
                source.finds(opens, SSH, &row);
            }
        }
        daemon.stop();
    });
}

/// There are at most as many answers as packets, and none is longer than its packet.
#[test]
fn answers_are_neither_more_nor_longer_than_what_they_answer() {
    test(|net| {
        let daemon = Daemon::start(&net.server, CONFIG);
        for family in Family::ALL {
            let source = net.new_source(family);
            let path = source.path();
            let wire = Wire::open(&net.client);
            let mut asked = Vec::new();
            for port in KNOCKS.into_iter().chain(DECOYS) {
                for flags in 0..=u8::MAX {
                    asked.push(segment(path, port, flags, 5, 6));
                }
            }
            // All have the same length.
            let longest = asked[0].len();
            let (client, _) = net::macs();
            let mut answers = 0;
            let mut count = || {
                let came = wire.seen();
                for frame in came.iter().filter(|frame| frame[..6] == client) {
                    assert!(frame.len() <= longest, "{family}: {frame:02x?}");
                    answers += 1;
                }
                answers
            };
            for frames in asked.chunks(64) {
                for frame in frames {
                    wire.send(frame);
                }
                count();
            }
            // SYNs with any of PSH, URG, ECE and CWR; FIN with ACK and any of these.
            let each = KNOCKS.len() + DECOYS.len();
            wait::until("all answers are here", || count() >= each * 32);
            catch_up(net, &daemon, family);
            assert_eq!(count(), each * 32, "{family}");
        }
        daemon.stop();
    });
}

/// SYNs alone, from any source: no attempt advances, and nothing is reported.
#[test]
fn a_syn_alone_is_not_a_knock() {
    test(|net| {
        let daemon = Daemon::start(&net.server, CONFIG);
        for family in Family::ALL {
            let row = family.to_string();
            let source = net.new_source(family);
            let forger = Forger::of(net, &source);
            for port in KNOCKS.into_iter().chain(DECOYS).chain(KNOCKS) {
                forger.send(port, SYN, 1, 0);
            }
            source.finds_closed(SSH, &row);
            catch_up(net, &daemon, family);
            assert_eq!(event_names(&daemon, &source), ["denied"], "{row}");
        }
        daemon.stop();
    });
}

/// A sender that forges a source address and does not receive the answers.
pub(crate) struct Forger {
    wire: Wire,
    path: Path,
}

impl Forger {
    pub(crate) fn of(net: &Net, source: &Source<'_>) -> Self {
        Self {
            wire: Wire::open(&net.client),
            path: source.path(),
        }
    }

    pub(crate) fn send(&self, port: u16, flags: u8, sequence: u32, acknowledged: u32) {
        let frame = segment(self.path, port, flags, sequence, acknowledged);
        self.wire.send(&frame);
    }
}

fn segment(path: Path, port: u16, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    wire::whole(
        path,
        &wire::numbered(path, SOURCE_PORT, port, flags, [sequence, acknowledged]),
    )
}

/// Waits for an answer with these flags.
#[track_caller]
fn gets(wire: &Wire, port: u16, flags: u8, row: &str) -> Vec<u8> {
    let mut got = None;
    wait::until(&format!("{row}: the answer of tcp/{port} is here"), || {
        got = wire.seen().into_iter().find(|frame| {
            let header = frame.len().checked_sub(20).map(|at| &frame[at..]);
            header.is_some_and(|header| {
                header[..2] == port.to_be_bytes()
                    && header[2..4] == SOURCE_PORT.to_be_bytes()
                    && header[13] == flags
            })
        });
        got.is_some()
    });
    got.unwrap()
}

/// Returns the sequence number and the acknowledgement of a frame that ends with its TCP header.
fn numbers(frame: &[u8]) -> [u32; 2] {
    let header = &frame[frame.len() - 20..];
    [4, 8].map(|at| u32::from_be_bytes(*header[at..].first_chunk().unwrap()))
}

/// A client that sends frames and reads answers from the link.
struct ByHand {
    wire: Wire,
    path: Path,
    /// How often each frame is sent.
    times: usize,
}

impl ByHand {
    fn send(&self, port: u16, flags: u8, sequence: u32, acknowledged: u32) {
        let frame = segment(self.path, port, flags, sequence, acknowledged);
        for _ in 0..self.times {
            self.wire.send(&frame);
        }
    }

    /// Waits for an answer with these flags; returns its sequence and acknowledgement numbers.
    #[track_caller]
    fn gets(&self, port: u16, flags: u8) -> [u32; 2] {
        numbers(&gets(&self.wire, port, flags, "by hand"))
    }

    /// Returns the ACK that proves the address.
    #[track_caller]
    fn asks(&self, port: u16) -> u32 {
        self.wire.seen();
        self.send(port, SYN, 1000, 0);
        let [cookie, acknowledged] = self.gets(port, SYN_ACK);
        assert_eq!(acknowledged, 1001);
        cookie.wrapping_add(1)
    }

    fn proves(&self, port: u16, number: u32) {
        self.send(port, ACK, 1001, number);
    }
}
