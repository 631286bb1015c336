//! Turns settings into the tables that the kernel side reads.
//!
//! Every error is found here and reported as a [`Conflict`]; the result is plain [`Tables`], which
//! the loader writes out.
//!
//! May use `model` and the facts in `host`. Must not know where settings come from, nor BPF maps.

mod automaton;
#[cfg(test)]
mod changing;
mod decoys;
mod difference;
mod flags;
mod handshake;
pub mod id_pool;
mod passing;
mod port_groups;
mod ports;
mod spa;
pub mod stable_ids;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use knock_common::{
    cookie,
    event::NO_DOOR,
    layout::{
        self, Config, DOORS_MAX, FLAG_CLASSES, Features, FlagClass, PortRule, Symbol, TARGETS_MAX,
        TRUST_MAX,
    },
    port_digits::PortDigits,
    time::ticks_in,
};
use knock_sequence::{Knock, duration::millis};

use self::{
    automaton::{Automaton, Path, symbol},
    flags::Flags,
    id_pool::IdPool,
    port_groups::PortGroups,
    ports::PortTable,
    stable_ids::IdAssigner,
};
pub use self::{
    difference::Difference,
    id_pool::Capacity,
    stable_ids::StableIds,
    tables::{EdgeFrom, Tables, grant_keys},
};
use crate::{
    host::Host,
    model::settings::{Door, Dynamic, Lockout, Scope, Sequence, Settings},
};

/// Something that the tables can't hold, or that the kernel side could not distinguish.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Conflict {
    /// The index of the door that it concerns, if any.
    pub door: Option<usize>,
    /// The key that it concerns.
    pub key: &'static str,
    /// What is wrong and what to write instead.
    pub reason: String,
}

impl Conflict {
    fn of_door(door: usize, key: &'static str, reason: String) -> Self {
        Self {
            door: Some(door),
            key,
            reason,
        }
    }

    fn of_file(key: &'static str, reason: String) -> Self {
        Self {
            door: None,
            key,
            reason,
        }
    }
}

/// The inputs of the compiler besides the configuration.
pub struct Input<'a> {
    /// This host.
    pub host: &'a Host,
    /// The secret key of the first-knock table: from the kernel's random numbers, kept for reloads.
    pub cell_key: [u64; 12],
    /// Numbers that are already in use.
    pub known: &'a StableIds,
    /// Random numbers to draw decoys with.
    pub draw: &'a mut dyn FnMut() -> u64,
    /// The sequences that are accepted now.
    pub sequences: &'a Sequences,
    /// The previous tables, if only sequences have changed.
    pub before: Option<Previous<'a>>,
}

/// The state that stays unchanged while sequences change.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// The tables that the maps were filled with.
    pub tables: &'a Tables,
    /// The time, in milliseconds since boot.
    pub now_ms: u64,
}

/// The current sequences of doors with changing ones, by the door's index.
pub type Sequences = BTreeMap<usize, Vec<Sequence>>;

/// Compiles a configuration.
///
/// # Errors
/// Returns every conflict.
pub fn compile(settings: &Settings, input: &mut Input<'_>) -> Result<Tables, Vec<Conflict>> {
    let layout = Layout::new(settings, input.known, input.sequences, input.before)?;
    let doors = &settings.doors;
    let mut ports = PortTable::default();
    ports.exempt(settings, input.host);
    for (port_group, ranges) in layout.port_groups.ports.iter() {
        for &range in ranges {
            ports.put_range(range, PortRule::protected(*port_group));
        }
    }
    for knock in knocks(doors, input.sequences) {
        let class = layout.flags.of_knock(knock);
        let first = layout.automaton.first(knock);
        ports.put(knock.protocol, knock.port, PortRule::knock(class, first));
    }
    for door in doors {
        // Each of these ports may become a knock, and some are one for certain sources.
        if let Some(Dynamic::Otp(otp)) = &door.dynamic {
            ports.fill(otp.sequences.ports(), &layout.flags);
        }
    }
    passing::mark(&mut ports, doors, input.sequences);
    spa::mark(&mut ports, settings);
    let drawn = ports.decoys(settings, input)?;
    let (nodes, edges) = layout.automaton.into_tables(&layout.numbers, &layout.paths);
    let entries: Vec<layout::DoorEntry> = (doors.iter().zip(&layout.numbers))
        .zip(&layout.port_groups.of_doors)
        .map(|((door, number), port_groups)| {
            door_entry(door, *number, &layout.target_ids, port_groups)
        })
        .collect();
    let mut by_entry = by_number(&layout.numbers, entries.iter().copied());
    add_sequences(&mut by_entry, &entries, &layout.paths, input.sequences);
    let names = doors.iter().map(|door| door.name.clone());
    let room = match &layout.id_pool {
        Some(id_pool) => id_pool.room(edges.len()),
        None => Capacity::of(nodes.len(), edges.len(), by_entry.len()),
    };
    Ok(Tables {
        features: features(settings),
        config: config(settings, &layout.flags, input),
        ports: ports.rules,
        drawn,
        nodes,
        edges,
        doors: by_entry,
        otp: otp(doors, &layout.numbers),
        targets: layout
            .target_ids
            .iter()
            .map(|(&address, &target_id)| (address.into(), target_id))
            .collect(),
        trust: settings
            .trust
            .iter()
            .map(|prefix| prefix.mapped())
            .collect(),
        // Only sequences have changed, and the keys of many users take long.
        spa: match input.before {
            Some(before) => before.tables.spa.clone(),
            None => spa::tables(settings, &layout.numbers, &layout.users),
        },
        port_groups: layout.port_groups.ports,
        names: by_number(&layout.numbers, names),
        numbers: layout.used,
        room,
        id_pool: layout.id_pool,
    })
}

/// Returns whether knocks of a door depend on the source.
fn is_per_source(door: &Door) -> bool {
    match &door.dynamic {
        Some(Dynamic::Otp(otp)) => otp.sequences.bind_source,
        Some(Dynamic::OneTime(_)) | None => false,
    }
}

/// Returns the inputs of knocks that depend on the source, by number of the door.
fn otp(doors: &[Door], numbers: &[u16]) -> Vec<(u16, layout::OtpEntry)> {
    let entry = |(door, &number): (&Door, &u16)| match &door.dynamic {
        Some(Dynamic::Otp(otp)) if otp.sequences.bind_source => Some((number, otp.entry())),
        Some(Dynamic::Otp(_) | Dynamic::OneTime(_)) | None => None,
    };
    doors.iter().zip(numbers).filter_map(entry).collect()
}

/// Returns all knocks, including those of the current changing sequences.
fn knocks<'a>(doors: &'a [Door], sequences: &'a Sequences) -> impl Iterator<Item = Knock> + 'a {
    let dynamic = sequences.values().flatten();
    let fixed = doors.iter().flat_map(|door| &door.knock);
    fixed
        .chain(dynamic.flat_map(|sequence| &sequence.knocks))
        .copied()
}

/// Adds an entry for each sequence of a door that has several.
fn add_sequences(
    by_entry: &mut Vec<layout::DoorEntry>,
    doors: &[layout::DoorEntry],
    paths: &[Path],
    sequences: &Sequences,
) {
    for (&place, sequences) in sequences {
        let own = paths.iter().filter(|path| path.door == place);
        for (path, sequence) in own.zip(sequences) {
            let entry = usize::from(path.entry);
            if by_entry.len() <= entry {
                by_entry.resize(entry + 1, layout::DoorEntry::default());
            }
            by_entry[entry] = layout::DoorEntry {
                sequence_id: sequence.sequence_id,
                replay_domain: sequence.replay_domain,
                good_until_ms: sequence.good_until_ms,
                ..doors[place]
            };
        }
    }
}

/// Reorders values of doors by number; there may be gaps.
fn by_number<T: Clone + Default>(numbers: &[u16], items: impl Iterator<Item = T>) -> Vec<T> {
    let count = numbers
        .iter()
        .max()
        .map_or(0, |&most| usize::from(most) + 1);
    let mut placed = vec![T::default(); count];
    for (&number, item) in numbers.iter().zip(items) {
        if let Some(place) = placed.get_mut(usize::from(number)) {
            *place = item;
        }
    }
    placed
}

/// Finds the conflicts that a configuration has on any host.
///
/// # Errors
/// Returns every conflict.
pub fn check(settings: &Settings) -> Result<(), Vec<Conflict>> {
    Layout::new(settings, &StableIds::default(), &Sequences::new(), None).map(|_| ())
}

/// The results of the steps that can fail.
struct Layout {
    /// The numbers of the doors, in their order.
    numbers: Vec<u16>,
    /// The numbers of the users, in their order.
    users: Vec<u16>,
    /// The numbers of everything.
    used: StableIds,
    /// The id of each target.
    target_ids: BTreeMap<IpAddr, u16>,
    flags: Flags,
    port_groups: PortGroups,
    paths: Vec<Path>,
    automaton: Automaton,
    /// Numbers that stay unchanged while sequences change; none if no door has changing sequences.
    id_pool: Option<IdPool>,
}

impl Layout {
    fn new(
        settings: &Settings,
        known: &StableIds,
        sequences: &Sequences,
        before: Option<Previous<'_>>,
    ) -> Result<Self, Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let mut id_assigner = IdAssigner::new(known);
        let doors = &settings.doors;
        within_limits(settings, &mut conflicts);
        spa::within_limits(settings, &mut conflicts);
        let target_ids = target_ids(doors, &mut id_assigner, &mut conflicts);
        // Within these limits, numbers fit their types.
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let flags = Flags::new(doors, sequences, &mut conflicts);
        handshake::check(doors, sequences, &mut conflicts);
        passing::check(doors, sequences, &mut conflicts);
        let numbers = doors.iter().map(|door| id_assigner.door(&door.name));
        // Within the limits, there are enough numbers for the doors of two configurations.
        let numbers: Vec<u16> = numbers.map(|number| number.unwrap_or(NO_DOOR)).collect();
        let users = spa::user_numbers(settings, &mut id_assigner);
        let port_groups = PortGroups::new(settings, &numbers, &mut id_assigner, &mut conflicts);
        let mut id_pool = id_pool(doors, &numbers, sequences, before);
        let paths = paths(doors, &numbers, sequences, id_pool.as_mut()).map_err(|c| vec![c])?;
        let automaton = Automaton::new(doors, &paths, &target_ids, &mut conflicts);
        match (port_groups, automaton) {
            (Some(port_groups), Some(mut automaton)) if conflicts.is_empty() => {
                if let Some(id_pool) = &mut id_pool {
                    let own = id_pool.number(&automaton, before.map(|before| before.now_ms));
                    automaton.renumber(&own.map_err(|conflict| vec![conflict])?);
                }
                Ok(Self {
                    numbers,
                    users,
                    used: id_assigner.used,
                    target_ids,
                    flags,
                    port_groups,
                    paths,
                    automaton,
                    id_pool,
                })
            }
            _ => Err(conflicts),
        }
    }
}

/// Returns the pool of stable numbers, if any door has changing sequences.
fn id_pool(
    doors: &[Door],
    numbers: &[u16],
    sequences: &Sequences,
    before: Option<Previous<'_>>,
) -> Option<IdPool> {
    let dynamic = doors.iter().any(|door| door.dynamic.is_some());
    dynamic.then(|| match before {
        Some(Previous { tables, now_ms }) => {
            let mut id_pool = tables.id_pool.clone().unwrap_or_default();
            id_pool.begin(now_ms);
            id_pool
        }
        None => {
            let end = numbers.iter().max().map_or(0, |&most| u32::from(most) + 1);
            let longest = doors.iter().map(|door| ticks(door.sequence_timeout)).max();
            IdPool::new(end, sequences, longest.unwrap_or(0))
        }
    })
}

/// Returns the sequences for the automaton.
fn paths(
    doors: &[Door],
    numbers: &[u16],
    sequences: &Sequences,
    mut id_pool: Option<&mut IdPool>,
) -> Result<Vec<Path>, Conflict> {
    let mut paths = Vec::with_capacity(doors.len());
    for (place, (door, &number)) in doors.iter().zip(numbers).enumerate() {
        if !door.knock.is_empty() {
            paths.push(Path {
                door: place,
                entry: number,
                symbols: door.knock.iter().copied().map(symbol).collect(),
                per_source: 0,
            });
        }
        for sequence in sequences.get(&place).into_iter().flatten() {
            let entry = id_pool
                .as_mut()
                .and_then(|p| p.entry(number, sequence.sequence_id));
            let fixed = sequence.knocks.iter().copied().map(symbol);
            let per_source = sequence.per_source.iter().map(|_| Symbol::PER_SOURCE);
            paths.push(Path {
                door: place,
                entry: entry.ok_or_else(id_pool::no_room)?,
                symbols: fixed.chain(per_source).collect(),
                per_source: u8::try_from(sequence.per_source.len()).unwrap_or(u8::MAX),
            });
        }
    }
    Ok(paths)
}

fn within_limits(settings: &Settings, conflicts: &mut Vec<Conflict>) {
    let doors = settings.doors.len();
    if doors > DOORS_MAX as usize {
        conflicts.push(Conflict::of_file(
            "door",
            format!("{doors} doors are too many: the limit is {DOORS_MAX}"),
        ));
    }
    let trusted = settings.trust.len();
    let most = TRUST_MAX as usize;
    if trusted > most {
        conflicts.push(Conflict::of_file(
            "trust",
            format!(
                "{trusted} prefixes are too many: the limit is {most}; join neighbours \
                 into shorter prefixes"
            ),
        ));
    }
}

fn target_ids(
    doors: &[Door],
    id_assigner: &mut IdAssigner<'_>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<IpAddr, u16> {
    let targets: BTreeSet<IpAddr> = doors.iter().filter_map(|door| door.target).collect();
    if targets.len() > TARGETS_MAX as usize {
        conflicts.push(Conflict::of_file(
            "door",
            format!(
                "{} different targets are too many: the limit is {TARGETS_MAX}",
                targets.len()
            ),
        ));
    }
    let target_id = |target| Some((target, id_assigner.target(target)?));
    targets.into_iter().filter_map(target_id).collect()
}

/// What a configuration uses.
pub fn features(settings: &Settings) -> Features {
    let targets = settings.doors.iter().any(|door| door.target.is_some());
    let reply = settings.doors.iter().any(|door| door.reply);
    let global = |lockout: &Lockout| lockout.scope == Scope::Global;
    [
        (settings.strict, Features::STRICT),
        (settings.established.keep, Features::KEEP),
        (!settings.trust.is_empty(), Features::TRUST),
        (targets, Features::TARGETS),
        (settings.has_handshakes() || reply, Features::ANSWERS),
        (settings.lockout.is_some(), Features::LOCKOUT),
        (settings.spa().is_some(), Features::SPA),
        (settings.fwknop_users().next().is_some(), Features::FWKNOP),
        (
            settings.doors.iter().any(|door| door.knock_pass),
            Features::KNOCK_PASS,
        ),
        (
            settings.doors.iter().any(is_per_source),
            Features::PER_SOURCE,
        ),
        (
            settings.lockout.as_ref().is_some_and(global),
            Features::LOCKOUT_GLOBAL,
        ),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .fold(Features::default(), Features::with)
}

fn config(settings: &Settings, flags: &Flags, input: &Input<'_>) -> Config {
    let mut flag_classes = [FlagClass::default(); FLAG_CLASSES];
    for (entry, class) in flag_classes.iter_mut().zip(&flags.classes) {
        *entry = *class;
    }
    let lockout = settings.lockout.as_ref();
    let longest = settings
        .doors
        .iter()
        .map(|door| ticks(door.sequence_timeout))
        .max();
    Config {
        flow_idle_ms: settings.established.idle_ms(),
        lockout_ms: lockout.map_or(0, |lockout| millis(lockout.duration)),
        confirm_by_ms: u64::MAX,
        cell_key: input.cell_key,
        // The same key for both turns, until the other one is drawn.
        cookie_keys: [cookie::key(input.cell_key); 2],
        spa_window_ns: settings
            .spa()
            .map_or(0, |spa| millis(spa.window) * 1_000_000),
        lockout_failures: lockout.map_or(0, |lockout| lockout.failures.into()),
        attempt_max_ticks: longest.unwrap_or(0),
        flag_classes,
    }
}

fn door_entry(
    door: &Door,
    number: u16,
    target_ids: &BTreeMap<IpAddr, u16>,
    port_groups: &[u16],
) -> layout::DoorEntry {
    let mut entry = layout::DoorEntry {
        number,
        open_for_ms: millis(door.open_for),
        sequence_timeout_ticks: ticks(door.sequence_timeout),
        target_id: door
            .target
            .and_then(|target| target_ids.get(&target).copied())
            .unwrap_or(0),
        closes: u16::from(!door.closed().is_empty()),
        reply: door
            .first_tcp()
            .filter(|_| door.reply)
            .map_or_else(PortDigits::default, PortDigits::of),
        ..layout::DoorEntry::default()
    };
    for (slot, port_group) in entry.port_groups.iter_mut().zip(port_groups) {
        *slot = *port_group;
        entry.port_group_count += 1;
    }
    entry
}

/// Converts a time limit to the kernel side's ticks.
fn ticks(duration: Duration) -> u32 {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    u32::try_from(ticks_in(nanos)).unwrap_or(u32::MAX)
}
