//! Sources that send without end and never knock, and a count of their packets that get through.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    net::{Family, Net},
    path::Path,
    random::number,
    wait,
    wire::{Wire, segment, syn, whole},
};

/// Their network, which no other source uses.
const NETWORK: &str = "203.0.113.0/24";
/// How many packets they send between two pauses.
const BURST: u64 = 16;
/// The pause, so that other tests get processor time; `KNOCK_PAUSE_MS` changes it.
const PAUSE_MS: u64 = 1;
const ACK: u8 = 0x10;

/// The unauthorized sources, which stop when this is dropped.
#[derive(Debug)]
pub struct UnauthorizedSources<'n> {
    net: &'n Net,
    counts: Arc<PacketCounts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct PacketCounts {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl<'n> UnauthorizedSources<'n> {
    /// Counts packets of these sources behind the place of the program. Call it before the program is attached,
    /// because it checks that the count moves.
    ///
    /// # Panics
    /// `nft` refuses, or the count does not move.
    #[track_caller]
    pub fn before_protection(net: &'n Net, port: u16) -> Self {
        let counter = format!(
            "table ip unauthorized {{
                counter through {{ }}
                chain before_all {{
                    type filter hook prerouting priority -300;
                    ip saddr {NETWORK} counter name through
                }}
            }}"
        );
        net.server.run("nft", &[&counter]);
        let sources = Self {
            net,
            counts: Arc::default(),
            thread: None,
        };
        let wire = Wire::open(&net.client);
        wire.send(&frames(port)[0]);
        wait::until("a packet of an unauthorized source is counted", || {
            sources.through() == 1
        });
        net.server
            .run("nft", &["reset counter ip unauthorized through"]);
        sources
    }

    /// Starts to send SYNs, and packets like those of connections, from many addresses.
    #[track_caller]
    pub fn start(&mut self, port: u16) {
        let wire = Wire::open(&self.net.client);
        let counts = Arc::clone(&self.counts);
        let pause = Duration::from_millis(number("KNOCK_PAUSE_MS").unwrap_or(PAUSE_MS));
        self.thread = Some(thread::spawn(move || {
            let frames = frames(port);
            for frame in frames.iter().cycle() {
                if counts.stop.load(Ordering::Relaxed) {
                    break;
                }
                wire.send(frame);
                if counts
                    .sent
                    .fetch_add(1, Ordering::Relaxed)
                    .is_multiple_of(BURST)
                {
                    thread::sleep(pause);
                }
            }
        }));
        wait::until("unauthorized sources send", || self.sent() > BURST);
    }

    /// Returns the number of packets sent so far.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// Returns how many packets got through.
    ///
    /// # Panics
    /// `nft` prints something else.
    #[track_caller]
    pub fn through(&self) -> u64 {
        let output = self
            .net
            .server
            .run("nft", &["list counter ip unauthorized through"]);
        let mut words = output.split_whitespace();
        let count = words
            .find(|word| *word == "packets")
            .and_then(|_| words.next()?.parse().ok());
        count.unwrap_or_else(|| panic!("nft printed {output}"))
    }

    /// Asserts that nothing got through, and that they still send.
    ///
    /// # Panics
    /// A packet got through, or they have stopped.
    #[track_caller]
    pub fn assert_none_got_in(&self, row: &str) {
        let sent = self.sent();
        assert_eq!(
            self.through(),
            0,
            "{row}: packets of unauthorized sources got through"
        );
        wait::until(&format!("{row}: unauthorized sources still send"), || {
            self.sent() > sent
        });
    }

    /// Stops them and asserts that nothing got through. Returns how many packets they sent.
    ///
    /// # Panics
    /// A packet got through.
    #[track_caller]
    pub fn stop(&mut self) -> u64 {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        assert_eq!(
            self.through(),
            0,
            "packets of unauthorized sources got through"
        );
        self.sent()
    }
}

impl Drop for UnauthorizedSources<'_> {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("unauthorized sources could not send");
        }
    }
}

/// Returns the frames that the unauthorized sources send, in turn.
fn frames(port: u16) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for host in 1..255 {
        let path = Path {
            from: IpAddr::from(Ipv4Addr::new(203, 0, 113, host)),
            to: Family::V4.server(),
        };
        frames.push(whole(path, &syn(path, 40_000, port)));
        frames.push(whole(path, &segment(path, 40_000, port, ACK)));
    }
    frames
}
