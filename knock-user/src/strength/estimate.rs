//! Estimates the strength of a sequence.
//!
//! A wrong knock that is the first of a sequence starts that sequence, so attempts can overlap and
//! one try costs about one packet. Repeated knocks change nothing, so an attacker sends each as often
//! as it may be needed, and a run of one knock counts once. For the same reason an attacker who
//! repeats the first part of a sequence finds any sequence in which that part is repeated.

use knock_common::packet::Protocol;
use knock_sequence::{Knock, PortSet, Ports};

use super::repeats::{is_distinct, period, without_runs};
use crate::model::settings::{Decoys, Door, Dynamic, Settings, Verify};

/// The possible values of a knock: any port of either protocol.
pub const SYMBOLS: u32 = 2 * TCP_SYMBOLS;
/// The possible values of a knock that is verified with a handshake: any TCP port.
const TCP_SYMBOLS: u32 = 65_535;
/// The possible values of a time-based knock: one octet selects its port.
const TIMED_SYMBOLS: u32 = 256;

/// How hard a door's sequence is to guess.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// The number of knocks.
    pub knocks: usize,
    /// The number of knocks that an attacker has to find: runs and repeated parts count once.
    pub counted: usize,
    /// The number of possible values of each, without a scan.
    pub symbols: u32,
    /// The number of sequences that open the door at the same time.
    pub good: u32,
    /// The number of possible sequences without a scan, as a power of two.
    pub bits: f64,
    /// The result of a scan.
    pub scanned: Scanned,
}

/// The knowledge that a scan gives about a door's knocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scanned {
    /// Nothing: knocks pass to the network stack, which answers as for other ports.
    Nothing,
    /// Nothing new: all ports that knocks can be on look alike.
    Range,
    /// The knock ports are among those that answer nothing, if closed ports answer with a reset.
    Silent(Candidates),
    /// The knock ports are among those that complete a handshake, whatever other ports do.
    Answering(Candidates),
}

/// The ports to which a scan narrows down the knocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidates {
    /// How many: knock ports of all doors, and decoys. Protected ports are silent too, but are left
    /// out, since most belong to well-known services.
    pub ports: usize,
    /// The number of their possible sequences, as a power of two.
    pub bits: f64,
}

/// The knowledge that a scan of the host gives.
#[derive(Clone, Debug)]
pub struct View {
    silent: usize,
    answering: usize,
}

impl View {
    /// Returns the view of these settings; `current` are the knocks of one-time sequences that are
    /// valid now.
    pub fn of<'a>(
        settings: &Settings,
        current: impl IntoIterator<Item = (&'a Door, Knock)>,
    ) -> Self {
        let mut silent: Vec<Ports> = Vec::new();
        let mut answering: Vec<Ports> = Vec::new();
        let mut add = |door: &Door, ports: Ports| {
            match (door.verify, ports.protocol) {
                _ if door.knock_pass => {}
                (Verify::Handshake, Protocol::Tcp) => answering.push(ports),
                (Verify::Handshake, Protocol::Udp) | (Verify::Packet, _) => silent.push(ports),
            };
        };
        for door in &settings.doors {
            for &knock in &door.knock {
                add(door, knock.into());
            }
            if let Some(Dynamic::Otp(otp)) = &door.dynamic {
                otp.sequences.ports().for_each(|ports| add(door, ports));
            }
        }
        for (door, knock) in current {
            add(door, knock.into());
        }
        // Decoys look like knocks: they reply if some knocks do.
        let answers = settings.has_handshakes();
        let mut drawn = 0;
        match &settings.decoys {
            Decoys::Drawn { count, .. } => drawn = usize::from(*count),
            Decoys::Listed(listed) => {
                for &ports in listed {
                    match answers && ports.protocol == Protocol::Tcp {
                        true => answering.push(ports),
                        false => silent.push(ports),
                    }
                }
            }
        }
        let (drawn_silent, drawn_answering) = if answers { (0, drawn) } else { (drawn, 0) };
        Self {
            silent: size(silent) + drawn_silent,
            answering: size(answering) + drawn_answering,
        }
    }
}

fn size(ports: Vec<Ports>) -> usize {
    let set = PortSet::new(ports);
    let all = [Protocol::Tcp, Protocol::Udp].map(|protocol| set.count(Ports::all(protocol)));
    all.into_iter().sum::<u32>() as usize
}

impl Strength {
    /// Returns the strength of one of a door's sequences.
    pub fn of(door: &Door, knocks: &[Knock], view: &View) -> Self {
        let runs = without_runs(knocks);
        let counted = period(&runs);
        let symbols = match door.verify {
            Verify::Packet => SYMBOLS,
            Verify::Handshake => TCP_SYMBOLS,
        };
        let part = runs.get(..counted).unwrap_or(&runs);
        let among = |ports: usize| Candidates {
            ports,
            bits: match is_distinct(part) {
                true => arrangements(ports, 1, counted),
                false => with_repeats(ports, counted),
            },
        };
        let scanned = match door.verify {
            _ if door.knock_pass => Scanned::Nothing,
            Verify::Packet => Scanned::Silent(among(view.silent)),
            Verify::Handshake => Scanned::Answering(among(view.answering)),
        };
        Self {
            knocks: knocks.len(),
            counted,
            symbols,
            good: match &door.dynamic {
                Some(Dynamic::OneTime(one_time)) => one_time.lookahead.into(),
                Some(Dynamic::Otp(_)) | None => 1,
            },
            bits: blind_bits(symbols, counted),
            scanned,
        }
    }

    /// Returns the strength of a door whose sequences change with the time; `None` for other doors.
    pub fn timed(door: &Door) -> Option<Self> {
        let Some(Dynamic::Otp(otp)) = &door.dynamic else {
            return None;
        };
        let knocks = otp.sequences.length();
        Some(Self {
            knocks,
            counted: knocks,
            symbols: TIMED_SYMBOLS,
            good: 2 * u32::from(otp.skew) + 1,
            bits: blind_bits(TIMED_SYMBOLS, knocks),
            scanned: match door.knock_pass {
                true => Scanned::Nothing,
                false => Scanned::Range,
            },
        })
    }

    /// Returns after how many tries somebody who knows nothing finds a sequence, on average, as a power of
    /// two.
    pub fn tries_bits(&self) -> f64 {
        self.bits - f64::from(self.good + 1).log2()
    }
}

/// Returns how many of these knocks an attacker has to find: runs count once, and so does a part that is
/// repeated.
pub(crate) fn counted(knocks: &[Knock]) -> usize {
    period(&without_runs(knocks))
}

/// Returns the number of sequences of `knocks` knocks as a power of two, if each knock is one of
/// `symbols`.
pub(crate) fn blind_bits(symbols: u32, knocks: usize) -> f64 {
    f64::from(symbols).log2() * count(knocks)
}

/// Returns how many sequences there are of ports that are used once each, as a power of two; each knock is
/// over one of `protocols`.
pub fn arrangements(ports: usize, protocols: usize, knocks: usize) -> f64 {
    let choices = (0..knocks).map(|taken| ports.saturating_sub(taken).max(1) * protocols);
    choices.map(|choices| count(choices).log2()).sum()
}

/// Returns how many sequences there are in which a port may come again, but not twice in a row.
fn with_repeats(ports: usize, knocks: usize) -> f64 {
    let further = count(ports.saturating_sub(1).max(1)).log2();
    match knocks {
        0 => 0.0,
        knocks => count(ports.max(1)).log2() + further * count(knocks - 1),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sequence has at most 128 knocks, and there are 131 070 ports"
)]
const fn count(number: usize) -> f64 {
    number as f64
}
