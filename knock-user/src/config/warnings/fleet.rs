//! Warns of a group without TLS, and of one without a door.

use super::Advice;
use crate::model::settings::Settings;

impl Advice<'_> {
    /// Warns of an engine without TLS, and of a group that opens nothing.
    pub(super) fn fleet(&mut self) {
        let settings = self.settings();
        let Some(fleet) = &settings.fleet else {
            return;
        };
        let places = &self.checked.places;
        let line = |key: &str| places.fleet.get(key).copied();
        let mut found = Vec::new();
        if fleet.servers.iter().any(|url| is_remote_in_the_clear(url)) {
            let reason = "without TLS, anybody between this host and the engine can delay and delete what it \
                          writes: use https, with a certificate for each host"
                .to_owned();
            found.push((line("servers"), "servers", reason));
        }
        if !has_shared_door(settings) {
            let reason = "no door of this file is opened by the group: remove `group = \"\"` or `target` from one, \
                          or remove [fleet]"
                .to_owned();
            found.push((places.keys.get("fleet").copied(), "fleet", reason));
        }
        for (line, key, reason) in found {
            self.add(line, key, reason);
        }
    }
}

fn has_shared_door(settings: &Settings) -> bool {
    let mut doors = settings.doors.iter();
    doors.any(|door| settings.is_shared(door))
}

/// Returns whether a URL leads to another host without TLS.
fn is_remote_in_the_clear(url: &str) -> bool {
    let is_own = |place: &str| {
        let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
        let address = host.trim_matches(['[', ']']);
        host == "localhost"
            || address
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    };
    url.strip_prefix("http://")
        .is_some_and(|place| !is_own(place))
}
