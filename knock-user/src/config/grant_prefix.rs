//! Reads `grant_prefix = { … }`, and warns of wide ones.

use std::ops::RangeInclusive;

use knock_common::GrantPrefix;

use super::section::TomlItem;
use crate::model::{
    problem::ProblemReport,
    settings::{Door, Prefix},
};

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
    let wide = wide.map(|(family, bits, wide, than)| {
        format!(
            "a grant for an {family} /{bits} covers {than}: all of them may connect while it \
             lasts; use {family} = {wide} or more"
        )
    });
    wide.chain(beyond(door))
}

/// Returns why grants of a door admit addresses that may not use it, one reason for each family.
fn beyond(door: &Door) -> Vec<String> {
    let families = [
        ("ipv4", true, door.grant_prefix.ipv4()),
        ("ipv6", false, door.grant_prefix.ipv6()),
    ];
    let reasons = families.into_iter().filter_map(|(family, is_ipv4, bits)| {
        let of_family = |prefix: &&Prefix| prefix.address.is_ipv4() == is_ipv4;
        let granted = |prefix: &Prefix| Prefix { bits, ..*prefix }.cleared();
        let mut sources = door.from.iter().filter(of_family);
        let source = sources.find(|prefix| !is_covered(granted(prefix), &door.from))?;
        let longest = door.from.iter().filter(of_family).map(|prefix| prefix.bits);
        Some(format!(
            "a grant for an {family} /{bits} admits all of {}, also what is not in from: use \
             {family} = {} or more",
            granted(source),
            longest.max().unwrap_or(bits)
        ))
    });
    reasons.collect()
}

/// Returns whether every address of a prefix is in one of others.
fn is_covered(prefix: Prefix, others: &[Prefix]) -> bool {
    if others.iter().any(|other| other.contains(prefix)) {
        return true;
    }
    others.iter().any(|other| prefix.contains(*other))
        && prefix
            .halves()
            .is_some_and(|halves| halves.iter().all(|half| is_covered(*half, others)))
}

#[cfg(test)]
mod tests {
    use crate::config;

    #[test]
    fn a_grant_that_admits_more_than_from_is_warned_of() {
        for (name, from, grant, expected) in [
            ("from everywhere", "", "ipv4 = 24", None),
            ("a single address", "\"192.0.2.0/29\"", "ipv4 = 32", None),
            ("as wide", "\"192.0.2.0/24\"", "ipv4 = 24", None),
            ("narrower", "\"10.0.0.0/8\"", "ipv4 = 24", None),
            (
                "wider",
                "\"198.51.100.8/29\"",
                "ipv4 = 24",
                Some(
                    "a grant for an ipv4 /24 admits all of 198.51.100.0/24, also what is not in \
                     from: use ipv4 = 29 or more",
                ),
            ),
            (
                "wider than one of them",
                "\"10.0.0.0/8\", \"198.51.100.8\"",
                "ipv4 = 24",
                Some(
                    "a grant for an ipv4 /24 admits all of 198.51.100.0/24, also what is not in \
                     from: use ipv4 = 32 or more",
                ),
            ),
            (
                "all of it, in parts",
                "\"192.0.2.0/25\", \"192.0.2.128/26\", \"192.0.2.192/26\"",
                "ipv4 = 24",
                None,
            ),
            ("another family", "\"192.0.2.0/29\"", "ipv6 = 64", None),
            (
                "wider, IPv6",
                "\"2001:db8:0:1::/96\"",
                "ipv6 = 64",
                Some(
                    "a grant for an ipv6 /64 admits all of 2001:db8:0:1::/64, also what is not in \
                     from: use ipv6 = 96 or more",
                ),
            ),
        ] {
            let text = format!(
                "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\n\
                 open = [\"tcp/22\"]\nfrom = [{from}]\ngrant_prefix = {{ {grant} }}\n"
            );
            let text = text.replace("from = []\n", "");
            let checked = config::parse(&text, "seq.toml").unwrap();
            let found: Vec<_> = super::warnings(&checked.settings.doors[0]).collect();
            assert_eq!(found.first().map(String::as_str), expected, "{name}");
        }
    }
}
