//! Reads `grant_prefix = { … }`, and warns of wide ones.

use std::ops::RangeInclusive;

use knock_common::GrantPrefix;

use super::section::TomlItem;
use crate::model::{problem::ProblemReport, settings::Door};

const KEYS: &[&str] = &["ipv4", "ipv6"];

/// A /16 is a large part of a provider: no client needs this many addresses.
const IPV4_BITS: RangeInclusive<u8> = 16..=32;
/// A /32 is what a registry gives to a whole provider.
const IPV6_BITS: RangeInclusive<u8> = 32..=128;
/// A shorter prefix has more than the pool of addresses that a carrier's NAT usually gives one customer.
const IPV4_WIDE: u8 = 24;
/// A site has at most a /48 (RFC 6177).
const IPV6_WIDE: u8 = 48;

/// Reads the table; a missing length is that of a single address.
pub(super) fn read(item: &TomlItem<'_, '_>, report: &mut ProblemReport) -> Option<GrantPrefix> {
    let before = report.problems.len();
    let mut section = item.section("grant_prefix", KEYS, report)?;
    let mut bits = |key, range: RangeInclusive<u8>| {
        let single = *range.end();
        let most = u16::from(single);
        section.or(key, report, single, |item, report| {
            let bits = item.number(report, u16::from(*range.start())..=most)?;
            u8::try_from(bits).ok()
        })
    };
    let (ipv4, ipv6) = (bits("ipv4", IPV4_BITS), bits("ipv6", IPV6_BITS));
    (report.problems.len() == before).then(|| GrantPrefix::new(ipv4, ipv6))
}

/// Returns why the grants of a door are wider than they should be, one reason for each family.
pub(super) fn warnings(door: &Door) -> impl Iterator<Item = String> {
    let prefix = door.grant_prefix;
    let families = [
        (
            "ipv4",
            prefix.ipv4(),
            IPV4_WIDE,
            "more addresses than a carrier usually shares among its customers",
        ),
        ("ipv6", prefix.ipv6(), IPV6_WIDE, "more than one site has"),
    ];
    let wide = families
        .into_iter()
        .filter(|(_, bits, wide, _)| bits < wide);
    wide.map(|(family, bits, wide, than)| {
        format!(
            "a grant for an {family} /{bits} covers {than}: all of them may connect while it \
             lasts; use {family} = {wide} or more"
        )
    })
}
