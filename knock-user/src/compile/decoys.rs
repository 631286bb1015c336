//! Draws ports that look like knock ports.

use std::ops::RangeInclusive;

use super::conflict::Conflict;
use crate::host::Host;

/// Draws `count` TCP ports that are not `taken`, outside the ephemeral range if there are enough.
pub(super) fn draw(
    count: u16,
    range: &RangeInclusive<u16>,
    taken: impl Fn(u16) -> bool,
    host: &Host,
    random: &mut dyn FnMut() -> u64,
) -> Result<Vec<u16>, Vec<Conflict>> {
    let free = range
        .clone()
        .filter(|&port| !taken(port) && !host.listens_on_tcp(port));
    // Replies to the host's own connections must not count as packets to a decoy.
    let (ephemeral, mut pool): (Vec<u16>, Vec<u16>) = free.partition(|&port| host.may_use(port));
    let wanted = usize::from(count);
    if pool.len() < wanted {
        pool.extend(ephemeral);
    }
    if pool.len() < wanted {
        return Err(vec![Conflict::of_file(
            "decoys",
            format!(
                "{count} decoys do not fit: only {} ports from {} to {} are unused; widen range, \
                 or lower count",
                pool.len(),
                range.start(),
                range.end()
            ),
        )]);
    }
    let mut drawn = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let index = usize::try_from(random() % pool.len() as u64).unwrap_or(0);
        drawn.push(pool.swap_remove(index));
    }
    Ok(drawn)
}
