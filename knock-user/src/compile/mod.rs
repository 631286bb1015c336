//! From what a configuration means to what the maps hold.
//!
//! Everything that can make it fail is found here and told as [`Conflict`]s; what is left is
//! plain tables that the loader writes out.

mod automaton;
mod decoys;
mod numbers;
mod services;
mod strength;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use knock_common::{
    event::NO_DOOR,
    layout::{
        self, Config, DOORS_MAX, FLAG_CLASSES, Features, FlagClass, PortRule, TARGETS_MAX,
        TRUST_MAX,
    },
    packet::Protocol,
    time::ticks_in,
};

use self::{automaton::Automaton, numbers::Numbering, services::Services};
pub use self::{
    numbers::Numbers,
    strength::{SYMBOLS, key_bits},
    tables::{EdgeFrom, Tables, grant_keys},
};
use crate::{
    config::{
        checked::{Decoys, Door, Exempt, Knock, Lockout, Ports, Scope, Settings},
        ports::PortSet,
        value::spell_flags,
    },
    host::Host,
};

/// Something that the tables can't hold, or that the kernel side could not tell apart.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Conflict {
    /// Index of the door that it is about, if it is about one.
    pub door: Option<usize>,
    /// The key that it is about.
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

/// What a configuration is compiled with besides itself.
pub struct Given<'a> {
    /// This host.
    pub host: &'a Host,
    /// The secret key of the first-knock table: from the kernel's random numbers, kept for reloads.
    pub cell_key: [u64; 12],
    /// Numbers that are in use already.
    pub known: &'a Numbers,
    /// Random numbers to draw decoys with.
    pub draw: &'a mut dyn FnMut() -> u64,
}

/// Compiles a configuration.
///
/// # Errors
/// Everything that stands in the way.
pub fn compile(settings: &Settings, given: &mut Given<'_>) -> Result<Tables, Vec<Conflict>> {
    let plan = Plan::new(settings, given.known)?;
    let doors = &settings.doors;
    let mut ports = PortTable::default();
    ports.exempt(settings, given.host);
    for (service, ranges) in plan.services.ports.iter() {
        for &range in ranges {
            ports.put_range(range, PortRule::protected(*service));
        }
    }
    for &knock in doors.iter().flat_map(|door| &door.knock) {
        let class = plan.flags.of_knock(knock);
        let first = plan.automaton.first(knock);
        ports.put(knock.protocol, knock.port, PortRule::knock(class, first));
    }
    match &settings.decoys {
        Decoys::Listed(listed) => {
            for &range in listed {
                ports.put_range(range, PortRule::DECOY);
            }
        }
        Decoys::Drawn { count, range } => {
            let taken = |port| ports.has(Protocol::Tcp, port);
            let drawn = decoys::draw(*count, range, taken, given.host, given.draw)?;
            for port in drawn {
                ports.put(Protocol::Tcp, port, PortRule::DECOY);
            }
        }
    }
    let (nodes, edges) = plan.automaton.into_tables(&plan.numbers);
    let entries = doors
        .iter()
        .zip(plan.services.of_doors)
        .map(|(door, services)| door_entry(door, &plan.classes, &services));
    let names = doors.iter().map(|door| door.name.clone());
    Ok(Tables {
        features: features(settings),
        config: config(settings, &plan.flags, given),
        ports: ports.rules,
        nodes,
        edges,
        doors: by_number(&plan.numbers, entries),
        targets: plan
            .classes
            .iter()
            .map(|(&address, &class)| (address.into(), class))
            .collect(),
        trust: settings
            .trust
            .iter()
            .map(|prefix| prefix.mapped())
            .collect(),
        services: plan.services.ports,
        names: by_number(&plan.numbers, names),
        numbers: plan.used,
    })
}

/// What belongs to the doors in their order, by their numbers; there may be gaps.
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

/// Finds what stands in the way of a configuration on any host.
///
/// # Errors
/// Everything that does.
pub fn check(settings: &Settings) -> Result<(), Vec<Conflict>> {
    Plan::new(settings, &Numbers::default()).map(|_| ())
}

/// The parts that can fail, before they are put together.
struct Plan {
    /// The numbers of the doors, in their order.
    numbers: Vec<u16>,
    /// The numbers of everything.
    used: Numbers,
    /// The class of each destination address that doors are for.
    classes: BTreeMap<IpAddr, u16>,
    flags: Flags,
    services: Services,
    automaton: Automaton,
}

impl Plan {
    fn new(settings: &Settings, known: &Numbers) -> Result<Self, Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let mut numbering = Numbering::new(known);
        let doors = &settings.doors;
        within_limits(settings, &mut conflicts);
        let classes = classes(doors, &mut numbering, &mut conflicts);
        // Beyond the limits, numbers would not fit their types.
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let flags = Flags::new(doors, &mut conflicts);
        let numbers = doors.iter().map(|door| numbering.door(&door.name));
        // Within the limits, two configurations' doors have numbers enough.
        let numbers: Vec<u16> = numbers.map(|number| number.unwrap_or(NO_DOOR)).collect();
        let services = Services::new(settings, &numbers, &mut numbering, &mut conflicts);
        let automaton = Automaton::new(doors, &classes, &mut conflicts);
        match (services, automaton) {
            (Some(services), Some(automaton)) if conflicts.is_empty() => Ok(Self {
                numbers,
                used: numbering.used,
                classes,
                flags,
                services,
                automaton,
            }),
            _ => Err(conflicts),
        }
    }
}

fn within_limits(settings: &Settings, conflicts: &mut Vec<Conflict>) {
    let doors = settings.doors.len();
    if doors > DOORS_MAX as usize {
        conflicts.push(Conflict::of_file(
            "door",
            format!("{doors} doors are too many: a file has at most {DOORS_MAX}"),
        ));
    }
    let trusted = settings.trust.len();
    let most = TRUST_MAX as usize;
    if trusted > most {
        conflicts.push(Conflict::of_file(
            "trust",
            format!(
                "{trusted} prefixes are too many: a file has at most {most}; join neighbours \
                 into shorter prefixes"
            ),
        ));
    }
}

fn classes(
    doors: &[Door],
    numbering: &mut Numbering<'_>,
    conflicts: &mut Vec<Conflict>,
) -> BTreeMap<IpAddr, u16> {
    let targets: BTreeSet<IpAddr> = doors.iter().filter_map(|door| door.target).collect();
    if targets.len() > TARGETS_MAX as usize {
        conflicts.push(Conflict::of_file(
            "door",
            format!(
                "{} different targets are too many: a file has at most {TARGETS_MAX}",
                targets.len()
            ),
        ));
    }
    let class = |target| Some((target, numbering.target(target)?));
    targets.into_iter().filter_map(class).collect()
}

/// The flags that make TCP packets knocks, by port.
struct Flags {
    classes: Vec<FlagClass>,
    /// Of the ports whose class is not the default.
    by_port: BTreeMap<u16, u8>,
}

impl Flags {
    fn new(doors: &[Door], conflicts: &mut Vec<Conflict>) -> Self {
        let mut flags = Self {
            classes: vec![FlagClass::SYN],
            by_port: BTreeMap::new(),
        };
        let mut owners: BTreeMap<u16, usize> = BTreeMap::new();
        for (index, door) in doors.iter().enumerate() {
            let number = flags.number(door.tcp_flags);
            let tcp = |knock: &&Knock| knock.protocol == Protocol::Tcp;
            for knock in door.knock.iter().filter(tcp) {
                let owner = *owners.entry(knock.port).or_insert(index);
                let Some(other) = doors.get(owner) else {
                    continue;
                };
                if other.tcp_flags != door.tcp_flags {
                    conflicts.push(Conflict::of_door(
                        index,
                        "tcp_flags",
                        format!(
                            "\"{}\" for {knock}, but door \"{}\" wants \"{}\": flags belong to \
                             the port, so use the same flags or another port",
                            spell_flags(door.tcp_flags),
                            other.name,
                            spell_flags(other.tcp_flags)
                        ),
                    ));
                    // Once for each door.
                    break;
                }
                if number != FlagClass::SYN_INDEX {
                    flags.by_port.insert(knock.port, number);
                }
            }
        }
        if flags.classes.len() > FLAG_CLASSES {
            conflicts.push(Conflict::of_file(
                "door",
                format!(
                    "{} different tcp_flags are too many: a file has at most {FLAG_CLASSES}",
                    flags.classes.len()
                ),
            ));
        }
        flags
    }

    fn number(&mut self, class: FlagClass) -> u8 {
        let found = self.classes.iter().position(|known| *known == class);
        let number = found.unwrap_or_else(|| {
            self.classes.push(class);
            self.classes.len() - 1
        });
        // More classes than a byte can number are too many anyway.
        u8::try_from(number).unwrap_or(u8::MAX)
    }

    fn of_knock(&self, knock: Knock) -> u8 {
        match knock.protocol {
            Protocol::Tcp => self.by_port.get(&knock.port).copied(),
            Protocol::Udp => None,
        }
        .unwrap_or(FlagClass::SYN_INDEX)
    }
}

/// Rules of ports; the others are ordinary.
#[derive(Default)]
struct PortTable {
    rules: BTreeMap<(Protocol, u16), PortRule>,
}

impl PortTable {
    fn put(&mut self, protocol: Protocol, port: u16, rule: PortRule) {
        self.rules.insert((protocol, port), rule);
    }

    fn put_range(&mut self, ports: Ports, rule: PortRule) {
        for port in ports.first..=ports.last {
            self.put(ports.protocol, port, rule);
        }
    }

    fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.rules.contains_key(&(protocol, port))
    }

    fn exempt(&mut self, settings: &Settings, host: &Host) {
        match &settings.exempt {
            Exempt::Listed(listed) => {
                for &range in listed {
                    self.put_range(range, PortRule::EXEMPT);
                }
            }
            Exempt::Served => {
                for served in &host.served {
                    self.put(served.protocol, served.port, PortRule::EXEMPT);
                }
            }
        }
    }
}

/// What a configuration uses.
pub fn features(settings: &Settings) -> Features {
    let targets = settings.doors.iter().any(|door| door.target.is_some());
    let global = |lockout: &Lockout| lockout.scope == Scope::Global;
    [
        (settings.strict, Features::STRICT),
        (settings.established.keep, Features::KEEP),
        (!settings.trust.is_empty(), Features::TRUST),
        (targets, Features::TARGETS),
        (settings.lockout.is_some(), Features::LOCKOUT),
        (
            settings.lockout.as_ref().is_some_and(global),
            Features::LOCKOUT_GLOBAL,
        ),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .fold(Features::default(), Features::with)
}

fn config(settings: &Settings, flags: &Flags, given: &Given<'_>) -> Config {
    let mut flag_classes = [FlagClass::default(); FLAG_CLASSES];
    for (entry, class) in flag_classes.iter_mut().zip(&flags.classes) {
        *entry = *class;
    }
    let lockout = settings.lockout.as_ref();
    let longest = settings.doors.iter().map(|door| ticks(door.within)).max();
    Config {
        flow_idle_ms: millis(settings.established.idle),
        lockout_ms: lockout.map_or(0, |lockout| millis(lockout.duration)),
        cell_key: given.cell_key,
        lockout_failures: lockout.map_or(0, |lockout| lockout.failures.into()),
        horizon_ticks: longest.unwrap_or(0),
        flag_classes,
    }
}

fn door_entry(door: &Door, classes: &BTreeMap<IpAddr, u16>, services: &[u16]) -> layout::Door {
    let mut entry = layout::Door {
        open_for_ms: millis(door.open_for),
        within: ticks(door.within),
        class: door
            .target
            .and_then(|target| classes.get(&target).copied())
            .unwrap_or(0),
        closes: u16::from(!door.closed().is_empty()),
        ..layout::Door::default()
    };
    for (slot, service) in entry.services.iter_mut().zip(services) {
        *slot = *service;
        entry.service_count += 1;
    }
    entry
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time limit in the kernel side's ticks.
fn ticks(duration: Duration) -> u32 {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    u32::try_from(ticks_in(nanos)).unwrap_or(u32::MAX)
}

/// The ports that need a grant.
pub fn protected(settings: &Settings) -> PortSet {
    let opened = settings.doors.iter().flat_map(Door::opened);
    PortSet::new(settings.protect.iter().chain(opened).copied())
}
