//! A network of members and hosts, each in a namespace of its own, on one bridge:
//!
//! ```text
//!   this test    10.77.0.1        members  10.77.0.11 to .13        hosts  10.77.0.21 and on
//!       └───────────────────────────── bridge ─────────────────────────────┘
//! ```

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::command::{run, try_run};

/// A bridge with namespaces behind it; all of it is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    bridge: String,
    places: Vec<Place>,
}

/// A namespace with one address.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The name of the namespace, and of the bridge's end of its link.
    pub(crate) name: String,
    pub(crate) address: String,
}

impl Network {
    /// Makes a namespace for each of these last octets of addresses.
    pub(crate) fn new(octets: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "{:x}{:x}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let bridge = format!("fb{id}");
        let mut network = Self {
            bridge: bridge.clone(),
            places: Vec::new(),
        };
        run("ip", &["link", "add", &bridge, "type", "bridge"]);
        run("ip", &["addr", "add", "10.77.0.1/24", "dev", &bridge]);
        run("ip", &["link", "set", &bridge, "up"]);
        for octet in octets {
            let name = format!("f{octet}x{id}");
            let address = format!("10.77.0.{octet}");
            network.places.push(Place {
                name: name.clone(),
                address: address.clone(),
            });
            run("ip", &["netns", "add", &name]);
            run(
                "ip",
                &[
                    "link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name,
                ],
            );
            run("ip", &["link", "set", &name, "master", &bridge, "up"]);
            for words in [
                "link set lo up".to_owned(),
                format!("addr add {address}/24 dev eth0"),
                "link set eth0 up".to_owned(),
            ] {
                network.inside(&name, &words);
            }
        }
        network
    }

    /// Returns the namespace with this last octet.
    #[track_caller]
    pub(crate) fn place(&self, octet: u8) -> Place {
        let address = format!("10.77.0.{octet}");
        let mut places = self.places.iter();
        match places.find(|place| place.address == address) {
            Some(place) => place.clone(),
            None => panic!("no namespace has {address}"),
        }
    }

    fn inside(&self, name: &str, words: &str) {
        let mut arguments = vec!["-n", name];
        arguments.extend(words.split(' '));
        run("ip", &arguments);
    }

    /// Cuts a namespace off from all others, or joins it again.
    pub(crate) fn set_link(&self, octet: u8, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        run("ip", &["link", "set", &self.place(octet).name, state]);
    }

    /// Cuts a namespace off from some others alone, or joins it to them again.
    pub(crate) fn set_route(&self, octet: u8, others: &[u8], is_up: bool) {
        let name = self.place(octet).name;
        let verb = if is_up { "del" } else { "add" };
        for other in others {
            self.inside(&name, &format!("route {verb} blackhole 10.77.0.{other}/32"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in &self.places {
            try_run("ip", &["netns", "del", &place.name]);
        }
        try_run("ip", &["link", "del", &self.bridge]);
    }
}
