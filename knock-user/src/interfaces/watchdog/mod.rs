//! Checks by counting frames whether received frames reach the program, since an attached link is no
//! proof of that.
//!
//! ```text
//! link events, resume ─▶ rearm ─▶ another copy of the program is due
//! rx_packets, FRAMES_SEEN ─▶ frames ─▶ finding: another copy, generic, or not protected
//! ```
//!
//! This is pure state: callers pass in events, counters and times, and apply the remedies that it
//! returns.

use std::collections::BTreeMap;

use anyhow::Result;
use knock_common::seen::{self, FramesSeen};

pub mod frames;
pub mod rearm;
pub mod resume;

use crate::model::text::count;
use frames::{Finding, FrameCounts, Frames};
use rearm::Rearm;

/// An interface that the program is attached to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attachment {
    /// Its number.
    pub index: u32,
    /// Whether the driver runs the program.
    pub native: bool,
    /// Whether link events require another copy. Not so where the driver takes the link down for
    /// each copy and is known to keep the program.
    pub follows_events: bool,
    /// Whether it is a software device, so that each frame that it counts enters the network stack.
    pub is_software: bool,
    /// The interfaces below it to which its driver passes the program: received frames have their
    /// numbers.
    pub below: Vec<u32>,
}

/// A reason why an attached interface is not protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameShortfall {
    /// The finding.
    pub finding: Finding,
    /// Its time, in milliseconds since boot.
    pub since_ms: u64,
}

/// Describes a finding in words that follow the name of the interface.
pub fn shortfall_text(finding: Finding) -> String {
    let unseen = |frames| {
        format!(
            "it received {}, and none of them got to the program",
            count(frames, "frame")
        )
    };
    match finding {
        Finding::Rearm(frames) => {
            format!(
                "{}; its driver was handed the program again",
                unseen(frames)
            )
        }
        Finding::Generic(frames) => format!(
            "{}, although its driver was handed it again; it is attached behind the driver now",
            unseen(frames)
        ),
        Finding::Blind(frames) => format!(
            "{}, in the driver or behind it; protect the interface by which they come to this host, \
             or close the ports with nftables",
            unseen(frames)
        ),
        Finding::Filtered(frames) => format!(
            "its driver counted {} that do not enter this host, such as those of other VLANs; nothing \
             passes by the program, which stays attached behind the driver",
            count(frames, "frame")
        ),
        Finding::Foreign { frames, ethertype } => format!(
            "hardly any of the last {} was IPv4 or IPv6; most have the type {}, and what they carry is not \
             judged: protect the interface that gets it",
            count(frames, "frame"),
            ethertype_text(ethertype)
        ),
        Finding::Sees => "frames get to the program, and are judged".to_owned(),
    }
}

/// Formats an EtherType, with its name if it carries IP to another interface.
fn ethertype_text(ethertype: u16) -> String {
    let name = match ethertype {
        0x8863 | 0x8864 => " (PPPoE)",
        0x8847 | 0x8848 => " (MPLS)",
        0x88e5 => " (MACsec)",
        0x88e7 => " (PBB)",
        0x892f | 0x88fb => " (HSR or PRP)",
        0x894f => " (NSH)",
        0x4305 => " (batman-adv)",
        _ => "",
    };
    format!("{ethertype:#06x}{name}")
}

/// The state of a watched interface.
#[derive(Clone, Debug)]
struct Watched {
    attachment: Attachment,
    frames: Frames,
    rearm: Rearm,
    shortfall: Option<FrameShortfall>,
}

/// The watched interfaces of an instance.
#[derive(Clone, Debug, Default)]
pub struct Watchdog {
    watched: BTreeMap<u32, Watched>,
}

impl Watchdog {
    /// Replaces the set of attached interfaces.
    pub fn follow(&mut self, attachments: Vec<Attachment>) {
        let mut before = std::mem::take(&mut self.watched);
        for attachment in attachments {
            let index = attachment.index;
            let known = before.remove(&index);
            let watched = match known {
                Some(known) => Watched {
                    attachment,
                    ..known
                },
                None => Watched {
                    attachment,
                    frames: Frames::default(),
                    rearm: Rearm::default(),
                    shortfall: None,
                },
            };
            self.watched.insert(index, watched);
        }
    }

    /// Notes a link event of an interface. Only drivers lose programs.
    pub fn event(&mut self, index: u32, now_ms: u64) {
        let has = |attachment: &Attachment| {
            attachment.follows_events
                && (attachment.index == index || attachment.below.contains(&index))
        };
        let hit = self.watched.values_mut();
        for watched in hit.filter(|watched| has(&watched.attachment)) {
            watched.rearm.event(now_ms);
        }
    }

    /// Notes a resume of the machine.
    pub fn resumed(&mut self, now_ms: u64) {
        for watched in self.watched.values_mut() {
            if watched.attachment.follows_events {
                watched.rearm = Rearm::default();
                watched.rearm.event(now_ms);
            }
        }
    }

    /// Returns when the next driver gets another copy of the program, in milliseconds since boot.
    pub fn next_ms(&self) -> Option<u64> {
        self.watched
            .values()
            .filter_map(|watched| watched.rearm.due_ms())
            .min()
    }

    /// Returns the interfaces whose drivers are due for another copy.
    pub fn due(&self, now_ms: u64) -> Vec<u32> {
        let is_due = |watched: &&Watched| {
            watched
                .rearm
                .due_ms()
                .is_some_and(|due_ms| due_ms <= now_ms)
        };
        let due = self.watched.values().filter(is_due);
        due.map(|watched| watched.attachment.index).collect()
    }

    /// Notes that a driver got another copy, or that handing it over failed.
    pub fn rearmed(&mut self, index: u32, now_ms: u64) {
        if let Some(watched) = self.watched.get_mut(&index) {
            watched.rearm.done(now_ms);
        }
    }

    /// Returns whether any driver runs the program.
    pub fn has_native(&self) -> bool {
        self.watched
            .values()
            .any(|watched| watched.attachment.native)
    }

    /// Returns the reason why an interface is not protected although the program is attached.
    pub fn shortfall(&self, index: u32) -> Option<FrameShortfall> {
        self.watched.get(&index)?.shortfall
    }

    /// Compares received frames with those that the program saw: `take_seen` reads and clears a
    /// slot of `FRAMES_SEEN`, `received` reads how many frames the kernel has counted on an
    /// interface.
    ///
    /// # Errors
    /// One of the two fails.
    pub fn look(
        &mut self,
        mut take_seen: impl FnMut(u32) -> Result<FramesSeen>,
        received: impl Fn(u32) -> Result<u64>,
        now_ms: u64,
    ) -> Result<Vec<(u32, Finding)>> {
        let mut slots = BTreeMap::new();
        for Watched { attachment, .. } in self.watched.values() {
            for index in attachment.below.iter().chain([&attachment.index]) {
                let slot = seen::slot(*index);
                if let std::collections::btree_map::Entry::Vacant(free) = slots.entry(slot) {
                    free.insert(take_seen(slot)?);
                }
            }
        }
        let mut findings = Vec::new();
        for (index, watched) in &mut self.watched {
            let Watched {
                attachment,
                frames,
                shortfall,
                ..
            } = watched;
            let indices = attachment.below.iter().chain([index]);
            let seen = indices.filter_map(|index| slots.get(&seen::slot(*index)));
            let seen = seen.copied().fold(FramesSeen::default(), FramesSeen::and);
            let found = match frames.settles(&seen) {
                Some(found) => found,
                None => frames.look(FrameCounts {
                    seen,
                    received: received(*index)?,
                    now_ms,
                    native: attachment.native,
                    counts_what_enters: attachment.is_software,
                }),
            };
            let Some(finding) = found else {
                continue;
            };
            *shortfall = match finding {
                Finding::Sees | Finding::Filtered(_) => None,
                Finding::Rearm(_)
                | Finding::Generic(_)
                | Finding::Blind(_)
                | Finding::Foreign { .. } => Some(FrameShortfall {
                    finding,
                    since_ms: shortfall.map_or(now_ms, |before| before.since_ms),
                }),
            };
            findings.push((*index, finding));
        }
        Ok(findings)
    }
}
