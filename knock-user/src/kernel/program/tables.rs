//! Reads and writes the maps of a loaded program.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use knock_common::{
    Address, Stat,
    access::Flow,
    cookie,
    grant::Grant,
    layout::{ALLOW_MAX, EdgeKey, FlowKey, GrantKey, PortRule, ProgressKey, UsedKey, port_index},
    presence,
    seen::FramesSeen,
    spa::layout::{FwknopKey, GATES, Gate, SpaKeyId, SpaTag},
    time::Moment,
};
use knock_sequence::Knock;

use super::XdpProgram;
use crate::{
    compile::Difference,
    host::{clock, random},
    kernel::maps::{self, Counters, Plain, Table},
};

impl XdpProgram {
    /// Draws the key of the next period of SYN cookies, unless it was drawn already or it is too
    /// early.
    ///
    /// # Errors
    /// The system gives no random numbers, or the kernel refuses.
    pub fn renew_cookie_key(&mut self, now: Moment) -> Result<()> {
        let next = cookie::next_turn(now).filter(|_| self.answers);
        let Some(next) = next.filter(|next| self.drawn != Some(*next)) else {
            return Ok(());
        };
        let key = random::key()?;
        if let Some(place) = self.config.cookie_keys.get_mut(cookie::place(next)) {
            *place = key;
        }
        // The program may read during this write: the key that it needs now stays the same.
        maps::set(&mut self.ebpf, "CONFIG", [(0, self.config)])?;
        self.drawn = Some(next);
        Ok(())
    }

    /// Sets when a program that was loaded with an end lets all packets pass, in milliseconds since
    /// boot; `None` means never. Without an end in [`LoadOptions`] this has no effect.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_confirm_by(&mut self, confirm_by_ms: Option<u64>) -> Result<()> {
        self.config.confirm_by_ms = confirm_by_ms.unwrap_or(u64::MAX);
        // Only one aligned word changes, which the program reads at once.
        maps::set(&mut self.ebpf, "CONFIG", [(0, self.config)])
    }

    /// Sets until when this host counts as in sync with its group, in milliseconds since boot; `u64::MAX` where doors
    /// open also while it is cut off. Without a door of the group this has no effect.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_fleet_until(&mut self, fleet_until_ms: u64) -> Result<()> {
        self.config.fleet_until_ms = fleet_until_ms;
        // Only one aligned word changes, which the program reads at once.
        maps::set(&mut self.ebpf, "CONFIG", [(0, self.config)])
    }

    /// Records existing connections as flows; returns those that were not recorded before.
    ///
    /// # Errors
    /// The maps can't be written.
    pub fn record_flows(&mut self, connections: Vec<FlowKey>, now_ms: u64) -> Result<Vec<FlowKey>> {
        let seen = Flow { seen_ms: now_ms };
        self.mark_present(connections.iter().map(|flow| flow.source))?;
        let mut flows = self.flows()?;
        let mut new = Vec::new();
        for flow in connections {
            if maps::insert_new(&mut flows, flow, seen.to_word())
                .context("recording a connection")?
            {
                new.push(flow);
            }
        }
        Ok(new)
    }

    /// Marks these sources in the presence filter, so that the program looks up their grants and
    /// flows. Call it before these are written.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn mark_present(&mut self, sources: impl IntoIterator<Item = Address>) -> Result<()> {
        let slots: BTreeSet<_> = sources.into_iter().map(presence::slot).collect();
        let slots = slots.into_iter().map(|slot| (slot, presence::ALWAYS));
        maps::set(&mut self.ebpf, "PRESENCE", slots)
    }

    /// Returns the entries of the allow map.
    ///
    /// # Errors
    /// The object has no such map.
    pub fn grants(&mut self) -> Result<Vec<(GrantKey, Grant)>> {
        let entries = maps::entries(&self.allow()?, ALLOW_MAX);
        let grant = |(key, word)| (key, Grant::from_word(word));
        Ok(entries.into_iter().map(grant).collect())
    }

    /// Returns the allow map, with grants as words.
    pub fn allow(&mut self) -> Result<Table<&mut MapData, GrantKey, u64>> {
        Ok(Table::try_from(maps::map_mut(&mut self.ebpf, "ALLOW")?)?)
    }

    /// Returns the map of progress past the first knock, as words.
    pub fn progress(&mut self) -> Result<Table<&mut MapData, ProgressKey, u64>> {
        Ok(Table::try_from(maps::map_mut(&mut self.ebpf, "PROGRESS")?)?)
    }

    /// Returns the map of flows, as words.
    pub fn flows(&mut self) -> Result<Table<&mut MapData, FlowKey, u64>> {
        Ok(Table::try_from(maps::map_mut(&mut self.ebpf, "FLOWS")?)?)
    }

    /// Returns the map of used sequences that are not retired yet, with the time of use.
    pub fn used(&mut self) -> Result<Table<&mut MapData, UsedKey, u64>> {
        Ok(Table::try_from(maps::map_mut(&mut self.ebpf, "USED")?)?)
    }

    /// Returns the map of the greatest stamp that each key of a user has used.
    pub fn stamps(&mut self) -> Result<Table<&mut MapData, SpaKeyId, u64>> {
        Ok(Table::try_from(maps::map_mut(&mut self.ebpf, "SPA_LAST")?)?)
    }

    /// Returns the map of used packets of fwknop, with their times in milliseconds since boot.
    pub fn seen(&mut self) -> Result<Table<&mut MapData, SpaTag, u64>> {
        Ok(Table::try_from(maps::map_mut(&mut self.ebpf, "SPA_SEEN")?)?)
    }

    /// Replaces the keys of fwknop's clients.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn set_fwknop_keys(&mut self, keys: &[FwknopKey]) -> Result<()> {
        let keys = keys.iter().copied();
        maps::set(&mut self.ebpf, "FWKNOP_KEYS", (0..).zip(keys))
    }

    /// Sets the wall clock: the time since 1970 minus the time since boot, in nanoseconds.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn set_wall_clock(&mut self, wall_ns: u64) -> Result<()> {
        maps::set(&mut self.ebpf, "WALL_CLOCK", [(0, wall_ns)])
    }

    /// Opens or closes the gates of SPA packets: while they are closed, none is accepted.
    ///
    /// # Errors
    /// The map can't be read or written.
    pub fn open_gates(&mut self, is_open: bool) -> Result<()> {
        let map = maps::map_mut(&mut self.ebpf, "SPA_GATES")?;
        let mut gates = Array::<_, Plain<Gate>>::try_from(map)?;
        for index in 0..GATES {
            let Plain(gate) = gates.get(&index, 0).context("reading a gate")?;
            // A gate without keys stays closed.
            let is_used = u64::from(is_open && gate.check != [0; 2]);
            let gate = Plain(Gate { is_used, ..gate });
            gates.set(index, gate, 0).context("writing a gate")?;
        }
        Ok(())
    }

    /// Exempts the ports on which the host listens `now`, and ends the exemption of those `before`.
    /// Protected ports, knock ports and decoys keep their rule.
    ///
    /// # Errors
    /// The map can't be read or written; call it again with the same ports.
    pub fn follow_served(&mut self, before: &BTreeSet<Knock>, now: &BTreeSet<Knock>) -> Result<()> {
        let mut ports =
            Array::<_, Plain<PortRule>>::try_from(maps::map_mut(&mut self.ebpf, "PORTS")?)
                .context("map PORTS")?;
        let ended = before
            .difference(now)
            .map(|port| (port, PortRule::EXEMPT, PortRule::ORDINARY));
        let served = now
            .iter()
            .map(|port| (port, PortRule::ORDINARY, PortRule::EXEMPT));
        for (port, from, to) in ended.chain(served) {
            let index = port_index(port.protocol, port.port);
            let Plain(rule) = ports.get(&index, 0).context("reading map PORTS")?;
            if rule == from {
                ports
                    .set(index, Plain(to), 0)
                    .context("writing map PORTS")?;
            }
        }
        Ok(())
    }

    /// Records sequences as used.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn note_used(&mut self, used: &[UsedKey]) -> Result<()> {
        let mut table = self.used()?;
        for &key in used {
            maps::insert_new(&mut table, key, clock::boot_ms())
                .context("recording a sequence that was used before")?;
        }
        Ok(())
    }

    /// Replaces sequences while the program judges packets.
    ///
    /// # Errors
    /// The maps can't be written; call it again with the same difference.
    pub fn rearrange(&mut self, difference: Difference) -> Result<()> {
        let ebpf = &mut self.ebpf;
        maps::set(ebpf, "DOORS", difference.doors)?;
        maps::set(ebpf, "NODES", difference.nodes)?;
        maps::insert(ebpf, "EDGES", difference.edges)?;
        maps::set(ebpf, "NODES", difference.links)?;
        maps::set(ebpf, "PORTS", difference.ports)?;
        let mut edges = Table::<_, EdgeKey, u32>::try_from(maps::map_mut(ebpf, "EDGES")?)?;
        for key in difference.gone {
            maps::delete(&mut edges, key).context("removing an edge of a sequence")?;
        }
        Ok(())
    }

    /// Returns and clears what the program saw of the interfaces with a slot; see
    /// [`knock_common::seen`].
    ///
    /// # Errors
    /// The map can't be read or written.
    pub fn take_seen(&mut self, slot: u32) -> Result<FramesSeen> {
        let cleared = FramesSeen {
            arrived: self.seen_bits(),
            foreign: 0,
        };
        let mut slots =
            Array::<_, Plain<FramesSeen>>::try_from(maps::map_mut(&mut self.ebpf, "FRAMES_SEEN")?)?;
        let Plain(seen) = slots.get(&slot, 0).context("reading the map FRAMES_SEEN")?;
        if seen != cleared {
            slots
                .set(slot, Plain(cleared), 0)
                .context("clearing the map FRAMES_SEEN")?;
        }
        Ok(FramesSeen {
            arrived: seen.arrived & FramesSeen::ARRIVED,
            ..seen
        })
    }

    /// Returns counters that are not about reasons, summed over all CPUs.
    pub fn tallies<const N: usize>(&self, tallies: [Stat; N]) -> Result<[u64; N]> {
        let counters = Counters::of(maps::map(&self.ebpf, "COUNTERS")?)?;
        let mut counts = [0; N];
        for (count, stat) in counts.iter_mut().zip(tallies) {
            *count = counters.get(stat as u32)?;
        }
        Ok(counts)
    }

    /// Returns the counters of reasons and stats by number, summed over all CPUs.
    pub fn counters(&self) -> Result<Vec<u64>> {
        Counters::of(maps::map(&self.ebpf, "COUNTERS")?)?.all()
    }
}
