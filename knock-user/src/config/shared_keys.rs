//! Finds users of fwknop whose packets can't be distinguished.

use super::places::FileLines;
use crate::model::{
    problem::Problem,
    settings::{Prefix, Settings},
    spa::Fwknop,
};

/// Returns a problem for each user with the HMAC key of an earlier one, if both may send from the same address: such
/// packets are judged as the earlier user's, and never open a door that only the later one has.
pub(super) fn find(settings: &Settings, places: &FileLines) -> Vec<Problem> {
    let users: Vec<_> = settings.fwknop_users().collect();
    let mut found = Vec::new();
    for (place, &(index, _, own)) in users.iter().enumerate() {
        let mut earlier = users.iter().take(place);
        let Some(&(first, owner, _)) = earlier.find(|(_, _, other)| are_alike(own, other)) else {
            continue;
        };
        let line = places.of_user(first, "fwknop").unwrap_or(1);
        let place = places.sources.on_line(line);
        let reason = format!(
            "user \"{}\" has the same HMAC key {place}, so packets can't be assigned: make keys for each user \
             with `fwknop --key-gen`, list all doors at one user, or give both a source without common addresses",
            owner.name
        );
        found.push(Problem {
            line: places.of_user(index, "fwknop"),
            key: "fwknop".to_owned(),
            reason,
        });
    }
    found
}

/// Returns whether a packet can be of both.
pub(crate) fn are_alike(one: &Fwknop, other: &Fwknop) -> bool {
    let (Some(own), Some(others)) = (&one.keys, &other.keys) else {
        return false;
    };
    // Keys of different lengths can be the same for HMAC.
    let [own, others] =
        [own, others].map(|keys| knock_common::hmac_sha256::HmacKey::new(&keys.hmac_key));
    own == others && have_common(&one.source, &other.source)
}

/// Returns whether an address is in both lists; an empty one has all.
fn have_common(one: &[Prefix], other: &[Prefix]) -> bool {
    let overlap = |a: &Prefix| other.iter().any(|b| a.has(b.address) || b.has(a.address));
    one.is_empty() || other.is_empty() || one.iter().any(overlap)
}
