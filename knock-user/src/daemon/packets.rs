//! Remembers the last SPA packets of sources, to explain them.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use knock_common::{Address, Reason, event::Event};
use knock_sequence::duration::spell_short;

use crate::host::clock;

/// Sources that are remembered.
const SOURCES_MOST: usize = 4_096;

/// The last SPA packet of each source, of the most recent ones.
#[derive(Debug, Default)]
pub(super) struct RecentPackets {
    last: HashMap<Address, Event>,
    order: VecDeque<Address>,
}

impl RecentPackets {
    /// Notes an event if it is about a SPA packet.
    pub(super) fn note(&mut self, event: &Event) {
        if !is_spa(event) {
            return;
        }
        // A packet for another address is explained at both.
        let from = [event.source, event.other].into_iter();
        let refused = event.reason() == Some(Reason::SpaElsewhere);
        for source in from.filter(|&at| at != Address::ANY && (at == event.source || !refused)) {
            if self.last.insert(source, *event).is_none() {
                self.order.push_back(source);
            }
        }
        while self.last.len() > SOURCES_MOST {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.last.remove(&oldest);
        }
    }

    /// Describes the last packet of a source; `name` and `door` return names by number.
    pub(super) fn explain(
        &self,
        source: Address,
        user: impl Fn(u16) -> Option<String>,
        door: impl Fn(u16) -> Option<String>,
    ) -> Option<String> {
        let event = self.last.get(&source)?;
        let ago_ns = clock::boot_ns().saturating_sub(event.at_ns);
        let ago = spell_short(Duration::from_secs(ago_ns / 1_000_000_000));
        let reason = event.reason()?;
        let by = match event.user {
            0 => String::new(),
            number => format!(
                " of user {}",
                user(number).unwrap_or_else(|| format!("number {number}"))
            ),
        };
        let door = door(event.door).map_or_else(String::new, |door| format!(" for door {door}"));
        Some(format!(
            "the last SPA packet from this source{by}{door}, {ago} ago: {}",
            reason.text()
        ))
    }
}

/// Returns whether an event is about a SPA packet that passed the gate.
fn is_spa(event: &Event) -> bool {
    let Some(reason) = event.reason() else {
        return false;
    };
    event.user != 0 || (reason.name().starts_with("spa-") && reason != Reason::SpaNoise)
}
