//! Groups of ports that the same doors open: what a grant is for.

use std::collections::{BTreeMap, HashMap};

use knock_common::{GrantPrefix, layout::PORT_GROUPS_PER_DOOR, packet::Protocol};
use knock_sequence::Ports;

use super::{conflict::Conflict, stable_ids::IdAssigner};
use crate::model::settings::{Door, Settings};

/// The port groups of a configuration.
pub(super) struct PortGroups {
    /// The ports of each group; none for the private group of a door that opens nothing.
    pub(super) ports: BTreeMap<u16, Vec<Ports>>,
    /// The groups that each door opens or closes.
    pub(super) of_doors: Vec<Vec<u16>>,
    /// The prefixes that the grants of each group cover, of groups that a door opens.
    pub(super) grant_prefixes: BTreeMap<u16, GrantPrefix>,
}

impl PortGroups {
    /// Divides the protected ports; `None` after a conflict, which is reported.
    pub(super) fn new(
        settings: &Settings,
        numbers: &[u16],
        id_assigner: &mut IdAssigner<'_>,
        conflicts: &mut Vec<Conflict>,
    ) -> Option<Self> {
        let doors = &settings.doors;
        let mut groups = Groups::new(doors.len());
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            if let Err(door) = groups.sweep(protocol, settings) {
                conflicts.push(too_many(doors, door));
                return None;
            }
        }
        let mut port_groups = Self {
            ports: BTreeMap::new(),
            of_doors: vec![Vec::new(); doors.len()],
            grant_prefixes: BTreeMap::new(),
        };
        let mut closed_with: BTreeMap<usize, GrantPrefix> = BTreeMap::new();
        let before = conflicts.len();
        let nothing = |door: &Door| door.opened().is_empty() && door.closed().is_empty();
        let commands = doors.iter().enumerate();
        let private = commands
            .filter(|(_, door)| nothing(door))
            .map(|(index, _)| (vec![index], Vec::new()));
        for (by, ports) in groups.list.into_iter().chain(private) {
            let mut names: Vec<u16> = by.iter().map(|&door| numbers[door]).collect();
            names.sort_unstable();
            let grant_prefix = grant_prefix(doors, &by, &ports, &mut closed_with, conflicts);
            let of_grants = grant_prefix.unwrap_or_default();
            let Some(id) = id_assigner.port_group(names, of_grants, &ports) else {
                let reason = "the doors divide the protected ports into more than 65534 groups: \
                              use the same port ranges in several doors";
                conflicts.push(Conflict::of_file("door", reason.to_owned()));
                return None;
            };
            for door in by {
                port_groups.of_doors[door].push(id);
            }
            if let Some(grant_prefix) = grant_prefix {
                port_groups.grant_prefixes.insert(id, grant_prefix);
            }
            port_groups.ports.insert(id, ports);
        }
        (conflicts.len() == before).then_some(port_groups)
    }

    /// Returns the prefixes that the grants of these groups cover, which are those of one door.
    ///
    /// A door may also close ports that no door opens; they have no grants.
    pub(super) fn grant_prefix(&self, port_groups: &[u16]) -> GrantPrefix {
        let mut known = port_groups
            .iter()
            .filter_map(|number| self.grant_prefixes.get(number));
        known.next().copied().unwrap_or_default()
    }
}

/// Returns the prefixes that grants for ports cover, if a door opens them, and reports doors that disagree.
///
/// The kernel side looks up one prefix per port, and a door ends grants of one width.
fn grant_prefix(
    doors: &[Door],
    by: &[usize],
    ports: &[Ports],
    closed_with: &mut BTreeMap<usize, GrantPrefix>,
    conflicts: &mut Vec<Conflict>,
) -> Option<GrantPrefix> {
    let known = by
        .iter()
        .filter_map(|&index| Some((index, doors.get(index)?)));
    let mut openers = known.clone().filter(|(_, door)| door.closed().is_empty());
    let (_, first) = openers.next()?;
    let prefix = first.grant_prefix;
    let port = ports.first().map_or_else(String::new, ToString::to_string);
    for (index, _) in openers.filter(|(_, door)| door.grant_prefix != prefix) {
        let reason = format!(
            "door \"{}\" opens {port} too, with grants of another width: give both the same \
             grant_prefix",
            first.name
        );
        conflicts.push(Conflict::of_door(index, "grant_prefix", reason));
    }
    for (index, _) in known.filter(|(_, door)| !door.closed().is_empty()) {
        let other = *closed_with.entry(index).or_insert(prefix);
        if other != prefix {
            let reason = format!(
                "the doors that open these ports give grants of different widths, and the one for \
                 {port} differs from others: close the ports with a door for each grant_prefix"
            );
            conflicts.push(Conflict::of_door(index, "close", reason));
        }
    }
    Some(prefix)
}

/// Protected ports by the doors that open or close them.
struct Groups {
    list: Vec<(Vec<usize>, Vec<Ports>)>,
    /// The index of the group of each set of doors.
    places: HashMap<Vec<usize>, usize>,
    /// How many groups each door has.
    per_door: Vec<usize>,
}

/// A rule that begins or ends at a port.
#[derive(Clone, Copy)]
enum RuleChange {
    /// Protection.
    Protection { begins: bool },
    /// The ports that a door opens or closes.
    Door { index: usize, begins: bool },
}

impl Groups {
    fn new(doors: usize) -> Self {
        Self {
            list: Vec::new(),
            places: HashMap::new(),
            per_door: vec![0; doors],
        }
    }

    /// Walks the ports of a protocol from change to change; returns the door with too many groups,
    /// if there is one.
    fn sweep(&mut self, protocol: Protocol, settings: &Settings) -> Result<(), usize> {
        let mut from = 0;
        let mut protections = 0_u32;
        // The doors of this port, and how many of their ranges contain it.
        let mut here: BTreeMap<usize, u32> = BTreeMap::new();
        for (at, changes) in changes(protocol, settings) {
            if protections > 0 && from < at {
                let ends = u16::try_from(from).ok().zip(u16::try_from(at - 1).ok());
                if let Some((first, last)) = ends {
                    let ports = Ports {
                        protocol,
                        first,
                        last,
                    };
                    self.add(here.keys().copied().collect(), ports)?;
                }
            }
            from = at;
            for change in changes {
                match change {
                    RuleChange::Protection { begins: true } => protections += 1,
                    RuleChange::Protection { begins: false } => protections -= 1,
                    RuleChange::Door { index, begins } => {
                        let depth = here.entry(index).or_default();
                        if begins {
                            *depth += 1;
                        } else {
                            *depth -= 1;
                        }
                        if *depth == 0 {
                            here.remove(&index);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, by: Vec<usize>, ports: Ports) -> Result<(), usize> {
        if let Some(&place) = self.places.get(&by) {
            let (_, group) = &mut self.list[place];
            match group.last_mut() {
                Some(last) if last.protocol == ports.protocol && last.last + 1 == ports.first => {
                    last.last = ports.last;
                }
                _ => group.push(ports),
            }
            return Ok(());
        }
        for &door in &by {
            self.per_door[door] += 1;
            if self.per_door[door] > PORT_GROUPS_PER_DOOR {
                return Err(door);
            }
        }
        self.places.insert(by.clone(), self.list.len());
        self.list.push((by, vec![ports]));
        Ok(())
    }
}

fn changes(protocol: Protocol, settings: &Settings) -> BTreeMap<u32, Vec<RuleChange>> {
    let mut changes: BTreeMap<u32, Vec<RuleChange>> = BTreeMap::new();
    let mut mark = |ports: &Ports, change: &dyn Fn(bool) -> RuleChange| {
        if ports.protocol == protocol {
            let after = u32::from(ports.last) + 1;
            let first = changes.entry(ports.first.into()).or_default();
            first.push(change(true));
            changes.entry(after).or_default().push(change(false));
        }
    };
    for ports in &settings.protect {
        mark(ports, &|begins| RuleChange::Protection { begins });
    }
    for (index, door) in settings.doors.iter().enumerate() {
        for ports in door.opened() {
            mark(ports, &|begins| RuleChange::Protection { begins });
        }
        for ports in door.opened().iter().chain(door.closed()) {
            mark(ports, &|begins| RuleChange::Door { index, begins });
        }
    }
    changes
}

fn too_many(doors: &[Door], index: usize) -> Conflict {
    let closes = doors
        .get(index)
        .is_some_and(|door| !door.closed().is_empty());
    let key = if closes { "close" } else { "open" };
    Conflict::of_door(
        index,
        key,
        format!(
            "other doors open parts of these ports, which makes more than {PORT_GROUPS_PER_DOOR} \
             groups of them: use the same ranges in the doors that share ports, or fewer ports"
        ),
    )
}
