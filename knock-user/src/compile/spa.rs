//! Tables of single packet authorization: the keys of gates and clients, and who may open what.

use std::collections::BTreeSet;

use knock_common::{
    fwknop::{Passphrase, text::username_hash},
    hmac_sha256,
    layout::{PortKind, PortRule, port_index},
    siphash::SipKey,
    spa::{
        layout::{
            FWKNOP_KEYS_MAX, FWKNOP_SOURCES_MAX, FwknopKey, Gate, KEYS_MAX, LAST_MAX, MAY_MAX,
            SourcePrefix, SpaDoorId, SpaKey, SpaKeyId, SpaKeyName, SpaMay, SpaMayKey,
        },
        port::{Otherwise as Others, SpaFormats, SpaPort},
    },
};
use knock_sequence::{
    duration::millis,
    spa::{self, GateKeys, PairKeys},
};

use super::{
    conflict::Conflict,
    ports::PortTable,
    stable_ids::IdAssigner,
    tables::{SpaTables, Tables},
};
use crate::model::{
    settings::{Door, Otherwise, Settings, User},
    spa::{Fwknop, HostKeyPairs, UserKey},
};

/// Users that a configuration may have: a reload has numbers for those of two configurations.
const USERS_MAX: usize = 30_000;

/// Checks that the maps have room for all users.
pub(super) fn within_limits(settings: &Settings, conflicts: &mut Vec<Conflict>) {
    let users = &settings.users;
    let keys: usize = users.iter().map(|user| user.keys.len()).sum();
    let ports_of = |name: &String| {
        let door = settings.doors.iter().find(|door| door.name == *name);
        let ports = door.into_iter().flat_map(Door::opened);
        ports
            .map(|ports| usize::from(ports.last - ports.first) + 1)
            .sum::<usize>()
    };
    let doors: usize = users.iter().map(|user| user.doors.len() + 1).sum();
    let ports: usize = settings
        .fwknop_users()
        .flat_map(|(_, user, _)| user.doors.iter().map(ports_of))
        .sum();
    let fwknop = settings.fwknop_users().count();
    let sources = settings
        .fwknop_users()
        .map(|(_, _, fwknop)| fwknop.source.len());
    let gates = 1 + usize::from(
        settings
            .spa
            .as_ref()
            .is_some_and(|spa| spa.old_key.is_some()),
    );
    // Words of removed keys are kept for a while.
    let keys_most = (KEYS_MAX as usize / gates).min(LAST_MAX as usize / 2);
    let doors_most = MAY_MAX as usize - settings.doors.len();
    for (what, count, most) in [
        ("users", users.len(), USERS_MAX),
        ("keys of users", keys, keys_most),
        (
            "doors of users, and ports of fwknop users, counted for each user,",
            doors + ports,
            doors_most,
        ),
        (
            "users with fwknop, each of which costs 1.2 µs for every forged packet,",
            fwknop,
            FWKNOP_KEYS_MAX as usize,
        ),
        (
            "prefixes in source",
            sources.max().unwrap_or_default(),
            FWKNOP_SOURCES_MAX,
        ),
    ] {
        if count > most {
            let reason = format!("{count} {what} are too many: the limit is {most}; use fewer");
            conflicts.push(Conflict::of_file("user", reason));
        }
    }
}

/// Returns the number of each user, from 1.
pub(super) fn user_numbers(settings: &Settings, id_assigner: &mut IdAssigner<'_>) -> Vec<u16> {
    let users = settings.users.iter();
    let numbers = users.map(|user| id_assigner.user(&user.name));
    // Within the limit, there are enough numbers.
    let numbers = numbers.map(|number| number.unwrap_or(u16::MAX)).collect();
    id_assigner.keep_removed_users(USERS_MAX);
    numbers
}

/// Marks the ports to which SPA packets are sent.
pub(super) fn mark(ports: &mut PortTable, settings: &Settings) {
    let Some(spa) = settings.spa() else {
        return;
    };
    let formats = [
        (settings.has_user_keys(), SpaFormats::KNOCK),
        (settings.fwknop_users().next().is_some(), SpaFormats::FWKNOP),
    ];
    let used = formats.into_iter().filter(|(is_used, _)| *is_used);
    let formats = used.fold(SpaFormats::default(), |all, (_, format)| all.with(format));
    for range in &spa.ports {
        for port in range.first..=range.last {
            let before = ports.rules.get(&(range.protocol, port));
            let group = before.filter(|rule| rule.kind() == PortKind::Protected);
            let otherwise = match (spa.otherwise, group) {
                (Otherwise::Drop, _) => Others::Drop,
                (Otherwise::Pass, None) => Others::Pass,
                (Otherwise::Pass, Some(rule)) => Others::Protected(rule.port_group),
            };
            let grant_prefix = group.map_or_else(Default::default, |rule| rule.grant_prefix());
            let rule = PortRule::spa(SpaPort { formats, otherwise });
            let rule = rule.with_grant_prefix(grant_prefix);
            ports.put(range.protocol, port, rule);
        }
    }
}

/// Returns the contents of the maps; `doors` and `users` are the numbers of both.
pub(super) fn tables(settings: &Settings, doors: &[u16], users: &[u16]) -> SpaTables {
    let Some(spa) = settings.spa() else {
        return SpaTables::default();
    };
    let mut tables = SpaTables {
        // Without keys of users there may be none of the host.
        gates: spa.host_keys.iter().map(gate).collect(),
        ..SpaTables::default()
    };
    for (door, &entry) in settings.doors.iter().zip(doors) {
        let key = SpaMayKey::door(SpaMayKey::ANYBODY, door_id(door));
        tables.may.push((key, may(door, entry)));
    }
    let mut known = BTreeSet::new();
    for (user, &number) in settings.users.iter().zip(users) {
        let bind = user.bind.unwrap_or(spa.bind);
        for (index, host_key) in (0..).zip(&spa.host_keys) {
            let pairs = user
                .keys
                .iter()
                .filter_map(|key| Some((key, host_key.pairs.get(&key.key)?)));
            tables.keys.extend(pairs.map(|(key, pair)| {
                let name = SpaKeyName {
                    id: SpaKeyId(key.key.id().number()),
                    gate: index,
                    padding: 0,
                };
                (name, entry(user, key, pair, number, bind))
            }));
        }
        let own = user.doors.iter().filter_map(|name| {
            let place = settings.doors.iter().position(|door| door.name == *name)?;
            Some((settings.doors.get(place)?, *doors.get(place)?))
        });
        for (place, (door, entry)) in own.enumerate() {
            let may = may(door, entry);
            if place == 0 {
                let first = SpaMayKey::door(number, SpaDoorId::FIRST);
                tables.may.push((first, may));
            }
            let key = SpaMayKey::door(number, door_id(door));
            tables.may.push((key, may));
            // Packets of fwknop name ports. The first door with a port is the one that opens.
            let ports = door.opened().iter().filter(|_| user.fwknop.is_some());
            let ports = ports.flat_map(|ports| {
                let numbers = ports.first..=ports.last;
                numbers.map(|port| port_index(ports.protocol, port))
            });
            for port in ports {
                let key = SpaMayKey::port(number, port);
                if known.insert((number, port)) {
                    tables.may.push((key, may));
                }
            }
        }
        tables.fwknop_keys.extend(
            user.fwknop
                .as_ref()
                .and_then(|fwknop| fwknop_key(fwknop, user, number, bind)),
        );
    }
    tables
}

/// Returns the entry of a client of fwknop; none if its keys were not read.
fn fwknop_key(fwknop: &Fwknop, user: &User, number: u16, bind: bool) -> Option<FwknopKey> {
    let keys = fwknop.keys.as_ref()?;
    let mut entry = FwknopKey {
        mac: hmac_sha256::HmacKey::new(&keys.hmac_key),
        passphrase: Passphrase::new(&keys.passphrase)?,
        not_after_ns: user.until.map_or(u64::MAX, |until| until.unix_ns()),
        username: fwknop.username.as_deref().map_or(0, username_hash),
        user: number,
        flags: if bind { FwknopKey::REQUIRE_SOURCE } else { 0 },
        ..FwknopKey::default()
    };
    for (place, prefix) in entry.sources.iter_mut().zip(&fwknop.source) {
        let (address, bits) = prefix.mapped();
        *place = SourcePrefix::new(address, bits);
        entry.source_count += 1;
    }
    Some(entry)
}

impl Tables {
    /// Returns the ids of the clients' keys, each of which needs a word in `SPA_LAST`.
    pub fn spa_key_ids(&self) -> impl Iterator<Item = SpaKeyId> + '_ {
        let first = self.spa.keys.iter().filter(|(name, _)| name.gate == 0);
        first.map(|(name, _)| name.id)
    }
}

fn gate(HostKeyPairs { key, .. }: &HostKeyPairs) -> Gate {
    let keys = GateKeys::of_host(key.public());
    Gate {
        check: sip_key(*keys.check),
        mask: sip_key(*keys.mask),
        is_used: 1,
    }
}

fn sip_key(octets: [u8; 16]) -> SipKey {
    let both = u128::from_le_bytes(octets);
    [both as u64, (both >> 64) as u64]
}

fn entry(user: &User, key: &UserKey, pair: &PairKeys, number: u16, bind: bool) -> SpaKey {
    let flags = [(bind, SpaKey::BIND), (user.for_others, SpaKey::FOR_OTHERS)];
    let set = flags.into_iter().filter(|(is_set, _)| *is_set);
    SpaKey {
        mac: hmac_sha256::HmacKey::new(&*pair.mac),
        cipher: hmac_sha256::HmacKey::new(&*pair.cipher),
        not_after_ns: user.end_of(key).map_or(u64::MAX, |until| until.unix_ns()),
        user: number,
        flags: set.fold(0, |all, (_, flag)| all | flag),
        ..SpaKey::default()
    }
}

fn door_id(door: &Door) -> SpaDoorId {
    SpaDoorId(spa::DoorId::of_name(&door.name).number())
}

fn may(door: &Door, entry: u16) -> SpaMay {
    SpaMay {
        open_for_ms: millis(door.open_for),
        open_for_max_ms: millis(door.open_for_max),
        entry,
        port: door.first_tcp().unwrap_or(0),
        ..SpaMay::default()
    }
}
