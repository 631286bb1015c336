//! Recognises clients whose clock is wrong: their knocks are the time-based sequence of another
//! period, which shows how far off the clock is.

use std::collections::{BTreeSet, HashMap, VecDeque};

use knock_common::{Address, Reason, event::Event, packet::Protocol};
use knock_sequence::{Knock, duration::millis};

use crate::model::settings::{Dynamic, Otp, Settings};

/// The largest skew that is recognised, in milliseconds.
const FAR_MS: u64 = 3_600_000;
/// The most sequences that are kept, of all doors together: about 10 MB.
const SEQUENCES_MOST: u64 = 65_536;
/// The shortest sequences that are recognised: shorter ones would match by chance. Three knocks are
/// 24 bits.
const KNOCKS_LEAST: usize = 3;
/// The most sources whose knocks are kept; beyond that all are dropped.
const SOURCES_MOST: usize = 1_024;

/// A source that knocked the sequence of another period.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SkewedKnock {
    /// The index of the door in the configuration.
    pub place: usize,
    /// How far its clock is behind ours, in seconds; negative if it is ahead.
    pub behind_s: i64,
}

/// The sequences of other periods, and the recent knocks of sources.
#[derive(Debug, Default)]
pub struct SkewDetector {
    doors: Vec<WatchedDoor>,
    /// Doors and periods by the half of the sequence that does not depend on the source.
    known: HashMap<Vec<Knock>, Vec<(usize, u64)>>,
    /// The lengths of those halves.
    lengths: BTreeSet<usize>,
    recent: HashMap<Address, VecDeque<Knock>>,
}

#[derive(Debug)]
struct WatchedDoor {
    place: usize,
    otp: Otp,
    period_ms: u64,
    /// How many periods before the current one are known, and as many after it.
    reach: u64,
    /// The known periods.
    known: std::ops::Range<u64>,
}

impl SkewDetector {
    /// Creates a detector for the doors with time-based sequences.
    pub fn new(settings: &Settings) -> Self {
        let timed: Vec<(usize, &Otp)> = settings
            .doors
            .iter()
            .enumerate()
            .filter_map(|(place, door)| match &door.dynamic {
                Some(Dynamic::Otp(otp)) if otp.sequences.protocols.len() >= KNOCKS_LEAST => {
                    Some((place, otp))
                }
                Some(Dynamic::Otp(_) | Dynamic::OneTime(_)) | None => None,
            })
            .collect();
        let share = SEQUENCES_MOST / (timed.len() as u64).max(1) / 2;
        let door = |&(place, otp): &(usize, &Otp)| {
            let period_ms = millis(otp.sequences.period);
            WatchedDoor {
                place,
                otp: otp.clone(),
                period_ms: period_ms.max(1),
                reach: (FAR_MS / period_ms.max(1)).min(share),
                known: 0..0,
            }
        };
        Self {
            doors: timed.iter().map(door).collect(),
            lengths: timed
                .iter()
                .map(|(_, otp)| otp.sequences.protocols.len())
                .collect(),
            ..Self::default()
        }
    }

    /// Observes an event at a time of the wall clock. Returns the skew if a knock completed the
    /// half of a sequence that is not accepted at that time.
    pub fn observe(&mut self, event: &Event, unix_ms: u64) -> Option<SkewedKnock> {
        let longest = self.lengths.last().copied()?;
        if !is_knock(event) {
            return None;
        }
        self.compute_sequences(unix_ms);
        if self.recent.len() >= SOURCES_MOST && !self.recent.contains_key(&event.source) {
            self.recent.clear();
        }
        let recent = self.recent.entry(event.source).or_default();
        recent.push_back(Knock {
            protocol: match event.protocol {
                0 => Protocol::Tcp,
                _ => Protocol::Udp,
            },
            port: event.port,
        });
        if recent.len() > longest {
            recent.pop_front();
        }
        let recent: Vec<Knock> = recent.iter().copied().collect();
        let halves = self.lengths.iter().filter_map(|&length| {
            let from = recent.len().checked_sub(length)?;
            self.known.get(recent.get(from..)?)
        });
        let skewed = |&(index, period): &(usize, u64)| {
            let door = self.doors.get(index)?;
            let now = unix_ms / door.period_ms;
            let away = i64::try_from(now).ok()? - i64::try_from(period).ok()?;
            (away.unsigned_abs() > u64::from(door.otp.skew)).then_some(SkewedKnock {
                place: door.place,
                behind_s: away * i64::try_from(door.period_ms / 1_000).ok()?,
            })
        };
        let found = halves.flatten().find_map(skewed);
        if found.is_some() {
            self.recent.remove(&event.source);
        }
        found
    }

    /// Computes the sequences around a time, and drops others.
    fn compute_sequences(&mut self, unix_ms: u64) {
        for (index, door) in self.doors.iter_mut().enumerate() {
            let now = unix_ms / door.period_ms;
            let wanted = now.saturating_sub(door.reach)..now.saturating_add(door.reach + 1);
            if wanted == door.known {
                continue;
            }
            let old = std::mem::replace(&mut door.known, wanted.clone());
            let half = |period: u64| door.otp.sequences.half(None, period);
            for period in old.clone().filter(|period| !wanted.contains(period)) {
                let Some(half) = half(period) else { continue };
                if let Some(entries) = self.known.get_mut(&half) {
                    entries.retain(|entry| *entry != (index, period));
                    if entries.is_empty() {
                        self.known.remove(&half);
                    }
                }
            }
            for period in wanted.filter(|period| !old.contains(period)) {
                let Some(half) = half(period) else { continue };
                self.known.entry(half).or_default().push((index, period));
            }
        }
    }
}

/// Returns whether an event is about a packet that may be a knock of a sequence.
fn is_knock(event: &Event) -> bool {
    matches!(
        event.reason(),
        Some(
            Reason::FirstKnock
                | Reason::NextKnock
                | Reason::Restarted
                | Reason::WrongKnock
                | Reason::TooLate
                | Reason::OutOfSequence
        )
    )
}
