//! The packet to explain, and its context.

use std::{collections::BTreeMap, net::IpAddr};

use knock_common::{layout::Features, time::Moment};
use knock_sequence::Knock;

use crate::model::settings::Settings;

/// The packet to explain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Query {
    /// The source of the packet.
    pub source: IpAddr,
    /// The destination port.
    pub port: Knock,
    /// The destination address; if none is named, an address that is not a door's target.
    pub destination: Option<IpAddr>,
}

/// The context of an explanation besides the maps.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The configuration in the maps.
    pub settings: &'a Settings,
    /// The numbers of its doors, by name.
    pub numbers: &'a BTreeMap<String, u16>,
    /// The options with which the program was loaded.
    pub features: Features,
    /// Now.
    pub now: Moment,
    /// When the source's last grant for the port ended, in milliseconds since boot, if known.
    pub ended_ms: Option<u64>,
    /// How the host is cut off from its group, if it is.
    pub cut_off: Option<&'a str>,
}
