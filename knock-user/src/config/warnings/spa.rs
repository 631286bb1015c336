//! Warns about users, their keys, and the ports of SPA packets.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use knock_sequence::{Knock, duration};
use nix::unistd::{Gid, Group};

use super::{Advice, listed};
use crate::{
    host::WallClock,
    model::{
        settings::{Otherwise, Spa, User},
        spa::Until,
        text::count,
    },
};

/// An end within this time is reported.
const SOON: Duration = Duration::from_secs(14 * 86_400);

impl Advice<'_> {
    pub(super) fn users(&mut self) {
        let checked = self.checked;
        let settings = &checked.settings;
        let Some(spa) = settings.spa() else {
            if settings.spa.is_some() {
                let reason = "there is no [[user]], so no packet can open a door: add one, or \
                              remove [spa]";
                self.of_file("spa", reason);
            }
            return;
        };
        for (index, user) in settings.users.iter().enumerate() {
            if user.doors.is_empty() {
                let reason = "the user may open no door: name doors, as in doors = [\"ssh\"]";
                self.add(
                    checked.places.of_user(index, "doors"),
                    "doors",
                    reason.to_owned(),
                );
            }
        }
        self.ends();
        self.unusable_doors();
        self.grants();
        self.served_ports(spa);
        self.exposed_keys(spa);
        if self.host.wall_clock.is_some() && WallClock::is_synchronised() == Some(false) {
            let window = duration::spell(spa.window);
            let reason = format!(
                "no time service keeps this host's clock right, and packets whose stamp is more \
                 than {window} from it are refused: start one, such as systemd-timesyncd or chrony"
            );
            self.add(checked.places.of_spa("window"), "window", reason);
        }
    }

    /// Warns of keys and users that have ended, or soon will.
    fn ends(&mut self) {
        let Some(now) = self.host.wall_clock else {
            return;
        };
        let checked = self.checked;
        for (index, user) in checked.settings.users.iter().enumerate() {
            let line = checked.places.of_user(index, "until");
            if let Some(what) = user.until.and_then(|until| ending(until, now)) {
                let reason = format!("the user {what}: change until, or remove the user");
                self.add(line, "until", reason);
            }
            for (place, key) in user.keys.iter().enumerate() {
                if let Some(what) = key.until.and_then(|until| ending(until, now)) {
                    let note = match key.note.as_str() {
                        "" => String::new(),
                        note => format!(" ({note})"),
                    };
                    let reason =
                        format!("the key{note} {what}: change its until, or remove the key");
                    self.add(checked.places.of_key(index, place), "keys", reason);
                }
            }
        }
    }

    /// Warns of doors without a sequence whose users have all ended.
    fn unusable_doors(&mut self) {
        let Some(now) = self.host.wall_clock else {
            return;
        };
        let settings = self.settings();
        let is_usable = |user: &User| {
            let is_current =
                |until: Option<Until>| until.is_none_or(|until| !until.has_passed(now.unix_ms));
            let mut keys = user.keys.iter();
            (user.fwknop.is_some() && is_current(user.until))
                || keys.any(|key| is_current(user.end_of(key)))
        };
        let closed: Vec<_> = (settings.doors.iter().enumerate())
            .filter(|(_, door)| !door.has_sequence() && !settings.users_of(door).any(is_usable))
            .map(|(index, _)| index)
            .collect();
        for index in closed {
            let reason = "nobody can open the door: the keys of all its users have expired";
            self.of_door(index, "name", reason);
        }
    }

    fn grants(&mut self) {
        let settings = self.settings();
        let unused: Vec<_> = (settings.doors.iter().enumerate())
            .filter(|(_, door)| {
                door.open_for_max > door.open_for && settings.users_of(door).next().is_none()
            })
            .map(|(index, _)| index)
            .collect();
        for index in unused {
            let reason = "no user has the door, and a grant for knocks always lasts open_for: \
                          remove open_for_max";
            self.of_door(index, "open_for_max", reason);
        }
    }

    /// Warns of services whose port receives SPA packets alone.
    fn served_ports(&mut self, spa: &Spa) {
        if spa.otherwise == Otherwise::Pass {
            return;
        }
        let is_spa = |knock: &&Knock| {
            let mut ports = spa.ports.iter();
            ports.any(|ports| ports.overlaps((**knock).into()))
        };
        let served: Vec<_> = self.host.served.iter().filter(is_spa).collect();
        if served.is_empty() {
            return;
        }
        let reason = format!(
            "this host listens on {}, and only SPA packets are accepted there: use another port, \
             or otherwise = \"pass\"",
            listed(&served)
        );
        let line = self.checked.places.of_spa("ports");
        self.add(line, "ports", reason);
    }

    /// Warns if other users of the host can read or replace a private key.
    fn exposed_keys(&mut self, spa: &Spa) {
        let checked = self.checked;
        for (index, _, fwknop) in checked.settings.fwknop_users() {
            if let Some(who) = exposed_to(&fwknop.file) {
                let shown = fwknop.file.display();
                let reason = format!(
                    "{who} the keys in {shown}, and open the doors of this user: chmod 600 {shown}"
                );
                self.add(checked.places.of_user(index, "fwknop"), "fwknop", reason);
            }
        }
        for (key, path) in spa.files() {
            if let Some(who) = exposed_to(path) {
                let shown = path.display();
                let reason = format!(
                    "{who} the private key in {shown}, and pose as this host: chmod 600 {shown}"
                );
                self.add(self.checked.places.of_spa(key), key, reason);
            }
        }
    }
}

/// The group of the service that packages install.
const SERVICE_GROUP: &str = "knock";

/// Returns who besides the owner can read or replace a file, as the beginning of a sentence: "every
/// user of this host can read". None if nobody can, or only root's group and that of the service, as
/// in docs/operating.md.
pub(super) fn exposed_to(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let of_others = access(found.mode() & 0o7);
    if let Some(access) = of_others {
        return Some(format!("every user of this host can {access}"));
    }
    let access = access(found.mode() >> 3 & 0o7)?;
    let group = Group::from_gid(Gid::from_raw(found.gid())).ok().flatten();
    let name = group.map_or_else(|| found.gid().to_string(), |group| group.name);
    let is_meant = found.gid() == 0 || (name == SERVICE_GROUP && access == "read");
    (!is_meant).then(|| format!("members of the group {name} can {access}"))
}

/// Returns what three bits of a mode allow to do with the content of a file.
const fn access(bits: u32) -> Option<&'static str> {
    match (bits & 0o4 != 0, bits & 0o2 != 0) {
        (true, true) => Some("read and replace"),
        (true, false) => Some("read"),
        (false, true) => Some("replace"),
        (false, false) => None,
    }
}

/// Returns what happens at the end of a user or key, if it has passed or is near.
fn ending(until: Until, now: WallClock) -> Option<String> {
    if until.has_passed(now.unix_ms) {
        return Some(format!("expired on {until}"));
    }
    let left = Duration::from_nanos(until.unix_ns().saturating_sub(now.unix_ms * 1_000_000));
    (left <= SOON).then(|| {
        let left = match left.as_secs() / 86_400 {
            0 => "less than a day".to_owned(),
            days => count(days, "day"),
        };
        format!("expires in {left}, on {until}")
    })
}
