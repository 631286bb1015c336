//! Tables of single packet authorization: the keys of gates and clients, and who may open what.

use knock_common::{
    hmac_sha256,
    layout::{PortKind, PortRule},
    siphash::SipKey,
    spa::layout::{
        DoorId, Gate, KEYS_MAX, KeyId, LAST_MAX, MAY_MAX, Otherwise as Others, SpaFormats, SpaKey,
        SpaKeyName, SpaMay, SpaMayKey, SpaPort,
    },
};
use knock_sequence::{
    duration::millis,
    spa::{self, GateKeys, PairKeys},
};

use super::{Conflict, Tables, ports::PortTable, stable_ids::IdAssigner, tables::SpaTables};
use crate::model::{
    settings::{Door, Otherwise, Settings, User},
    spa::{HostKey, UserKey},
};

/// Users that a configuration may have: a reload has numbers for those of two configurations.
const USERS_MAX: usize = 30_000;

/// Checks that the maps have room for all users.
pub(super) fn within_limits(settings: &Settings, conflicts: &mut Vec<Conflict>) {
    let users = &settings.users;
    let keys: usize = users.iter().map(|user| user.keys.len()).sum();
    let doors: usize = users.iter().map(|user| user.doors.len() + 1).sum();
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
        ("doors of users, counted for each user,", doors, doors_most),
    ] {
        if count > most {
            let reason = format!("{count} {what} are too many: the limit is {most}");
            conflicts.push(Conflict::of_file("user", reason));
        }
    }
}

/// Returns the number of each user, from 1.
pub(super) fn user_numbers(settings: &Settings, id_assigner: &mut IdAssigner<'_>) -> Vec<u16> {
    let users = settings.users.iter();
    let numbers = users.map(|user| id_assigner.user(&user.name));
    // Within the limit, there are enough numbers.
    numbers.map(|number| number.unwrap_or(u16::MAX)).collect()
}

/// Marks the ports to which SPA packets are sent.
pub(super) fn mark(ports: &mut PortTable, settings: &Settings) {
    let Some(spa) = settings.spa() else {
        return;
    };
    for range in &spa.ports {
        for port in range.first..=range.last {
            let before = ports.rules.get(&(range.protocol, port));
            let group = before.filter(|rule| rule.kind() == PortKind::Protected);
            let otherwise = match (spa.otherwise, group) {
                (Otherwise::Drop, _) => Others::Drop,
                (Otherwise::Pass, None) => Others::Pass,
                (Otherwise::Pass, Some(rule)) => Others::Protected(rule.port_group),
            };
            let formats = SpaFormats::KNOCK;
            let rule = PortRule::spa(SpaPort { formats, otherwise });
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
        gates: spa.host_keys.iter().map(gate).collect(),
        ..SpaTables::default()
    };
    for (door, &entry) in settings.doors.iter().zip(doors) {
        let key = SpaMayKey::door(SpaMayKey::ANYBODY, door_id(door));
        tables.may.push((key, may(door, entry)));
    }
    for (user, &number) in settings.users.iter().zip(users) {
        let bind = user.bind.unwrap_or(spa.bind);
        for (index, host_key) in (0..).zip(&spa.host_keys) {
            let pairs = user
                .keys
                .iter()
                .filter_map(|key| Some((key, host_key.pairs.get(&key.key)?)));
            tables.keys.extend(pairs.map(|(key, pair)| {
                let name = SpaKeyName {
                    id: KeyId(key.key.id().number()),
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
                let first = SpaMayKey::door(number, DoorId::FIRST);
                tables.may.push((first, may));
            }
            let key = SpaMayKey::door(number, door_id(door));
            tables.may.push((key, may));
        }
    }
    tables
}

impl Tables {
    /// Returns the ids of the clients' keys, each of which needs a word in `SPA_LAST`.
    pub fn spa_key_ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        let first = self.spa.keys.iter().filter(|(name, _)| name.gate == 0);
        first.map(|(name, _)| name.id)
    }
}

fn gate(HostKey { key, .. }: &HostKey) -> Gate {
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
        mac: hmac_sha256::Key::new(&*pair.mac),
        cipher: hmac_sha256::Key::new(&*pair.cipher),
        not_after_ns: user.end_of(key).map_or(u64::MAX, |until| until.unix_ns()),
        user: number,
        flags: set.fold(0, |all, (_, flag)| all | flag),
        ..SpaKey::default()
    }
}

fn door_id(door: &Door) -> DoorId {
    DoorId(spa::DoorId::of_name(&door.name).number())
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
