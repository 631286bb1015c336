//! Which sources commands have blocked, and until when.
//!
//! The kernel finds only the longest prefix of a source. So that a block which has expired hides no wider one that has
//! not, each block lasts in the map at least as long as every block that contains it.

use std::collections::BTreeMap;

use knock_common::{Address, blocked::Blocked};

use crate::model::prefix::{MappedPrefix, Prefix};

/// An address as a number, and a length in bits: prefixes that another one contains follow it.
type Key = (u128, u32);

/// The prefixes that commands have blocked.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    held: BTreeMap<Key, Blocked>,
}

/// The changes to make in the map.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BlockChange {
    /// Entries to write.
    pub write: Vec<(MappedPrefix, Blocked)>,
    /// Entries to remove after that.
    pub remove: Vec<MappedPrefix>,
}

impl Blocks {
    /// Returns what a map has.
    pub fn of(entries: Vec<(MappedPrefix, Blocked)>) -> Self {
        let held = entries
            .into_iter()
            .map(|(prefix, block)| (key(prefix), block));
        Self {
            held: held.collect(),
        }
    }

    /// Returns the blocks, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Blocked)> {
        self.held
            .iter()
            .map(|(&key, &block)| (Prefix::from_mapped(prefix(key)), block))
    }

    /// Returns how many have not expired.
    pub fn valid(&self, now_ms: u64) -> usize {
        let blocks = self.held.values();
        blocks.filter(|block| now_ms < block.own_until_ms).count()
    }

    /// Returns the block of exactly this prefix.
    pub fn get(&self, prefix: Prefix) -> Option<Blocked> {
        self.held.get(&key(prefix.mapped())).copied()
    }

    /// Returns the shortest valid block that contains a prefix and is not its own.
    pub fn wider(&self, prefix: Prefix, now_ms: u64) -> Option<(Prefix, Blocked)> {
        let wider = self.containing(key(prefix.mapped()));
        let mut valid = wider.filter(|(_, block)| now_ms < block.own_until_ms);
        let (key, block) = valid.next()?;
        Some((Prefix::from_mapped(self::prefix(key)), block))
    }

    /// Returns how to block a prefix until a time, in milliseconds since boot. The later end of a block counts.
    pub fn block(&self, prefix: Prefix, until_ms: u64, by: u32) -> BlockChange {
        let key = key(prefix.mapped());
        let held = self.held.get(&key);
        let own_until_ms = held.map_or(until_ms, |held| held.own_until_ms.max(until_ms));
        self.changed(
            |held| {
                held.insert(
                    key,
                    Blocked {
                        own_until_ms,
                        by,
                        ..Blocked::default()
                    },
                );
            },
            key,
        )
    }

    /// Returns how to end the block of exactly this prefix.
    pub fn unblock(&self, prefix: Prefix) -> BlockChange {
        let key = key(prefix.mapped());
        if !self.held.contains_key(&key) {
            return BlockChange::default();
        }
        let change = self.changed(
            |held| {
                held.remove(&key);
            },
            key,
        );
        BlockChange {
            remove: vec![self::prefix(key)],
            ..change
        }
    }

    /// Returns the blocks that have expired. Those that they contain have lasted as long, so nothing else changes.
    pub fn expired(&self, now_ms: u64) -> BlockChange {
        let expired = self.held.iter();
        let expired = expired.filter(|(_, block)| block.own_until_ms <= now_ms);
        BlockChange {
            write: Vec::new(),
            remove: expired.map(|(&key, _)| prefix(key)).collect(),
        }
    }

    /// Records a change that was made in the map.
    pub fn apply(&mut self, change: &BlockChange) {
        for &(prefix, block) in &change.write {
            self.held.insert(key(prefix), block);
        }
        for &prefix in &change.remove {
            self.held.remove(&key(prefix));
        }
    }

    /// Returns the entries that are others after a change of the block with a key.
    fn changed(&self, change: impl FnOnce(&mut BTreeMap<Key, Blocked>), at: Key) -> BlockChange {
        let inside = self.held.range(at..=(last(at), 128));
        let inside = inside.filter(|((_, bits), _)| *bits >= at.1);
        let mut after: BTreeMap<Key, Blocked> = self
            .containing(at)
            .chain(inside.map(|(&key, &block)| (key, block)))
            .collect();
        change(&mut after);
        let after = Self { held: after };
        let entries = after.held.iter().filter(|((_, bits), _)| *bits >= at.1);
        let entries = entries.map(|(&key, &block)| {
            let wider = after.containing(key).map(|(_, block)| block.own_until_ms);
            let until_ms = wider.fold(block.own_until_ms, u64::max);
            (key, Blocked { until_ms, ..block })
        });
        BlockChange {
            write: entries
                .filter(|(key, block)| self.held.get(key) != Some(block))
                .map(|(key, block)| (prefix(key), block))
                .collect(),
            remove: Vec::new(),
        }
    }

    /// Returns the blocks that contain a prefix and are not its own, the shortest first.
    fn containing(&self, (address, bits): Key) -> impl Iterator<Item = (Key, Blocked)> {
        (0..bits).filter_map(move |bits| {
            let key = (address & mask(bits), bits);
            Some((key, *self.held.get(&key)?))
        })
    }
}

fn key((address, bits): MappedPrefix) -> Key {
    (u128::from_be_bytes(address.octets()), bits)
}

fn prefix((address, bits): Key) -> MappedPrefix {
    (Address::from_v6(address.to_be_bytes()), bits)
}

/// Returns the last address of a prefix.
fn last((address, bits): Key) -> u128 {
    address | !mask(bits)
}

fn mask(bits: u32) -> u128 {
    u128::MAX
        .checked_shl(128_u32.saturating_sub(bits))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries out a change on a map and on the blocks.
    fn carry_out(blocks: &mut Blocks, map: &mut BTreeMap<Key, Blocked>, change: &BlockChange) {
        for &(prefix, block) in &change.write {
            map.insert(key(prefix), block);
        }
        for &prefix in &change.remove {
            map.remove(&key(prefix));
        }
        blocks.apply(change);
    }

    /// Returns what the kernel decides: the longest prefix alone.
    fn is_blocked(map: &BTreeMap<Key, Blocked>, source: &str, now_ms: u64) -> bool {
        let (address, bits) = key(source.parse::<Prefix>().unwrap().mapped());
        (0..=bits)
            .rev()
            .find_map(|bits| map.get(&(address & mask(bits), bits)))
            .is_some_and(|block| now_ms < block.until_ms)
    }

    enum BlockStep {
        Block(&'static str, u64),
        Unblock(&'static str),
        Expire(u64),
    }
    use BlockStep::{Block, Expire, Unblock};

    #[test]
    fn a_block_hides_no_wider_one() {
        const WIDE: &str = "198.51.100.0/24";
        const ONE: &str = "198.51.100.7";
        let never = Blocked::NEVER;
        for (name, steps, now_ms, one, other) in [
            ("nothing", vec![], 0, false, false),
            ("one", vec![Block(ONE, 10)], 9, true, false),
            ("one, expired", vec![Block(ONE, 10)], 10, false, false),
            ("wide", vec![Block(WIDE, 10)], 9, true, true),
            (
                "one in a longer wide one",
                vec![Block(WIDE, 20), Block(ONE, 10)],
                15,
                true,
                true,
            ),
            (
                "a longer wide one around one",
                vec![Block(ONE, 10), Block(WIDE, 20)],
                15,
                true,
                true,
            ),
            (
                "one in a shorter wide one",
                vec![Block(WIDE, 10), Block(ONE, 20)],
                15,
                true,
                false,
            ),
            (
                "a shorter one is removed",
                vec![Block(WIDE, 20), Block(ONE, 10), Expire(15)],
                15,
                true,
                true,
            ),
            (
                "the wide one is unblocked",
                vec![Block(WIDE, 20), Block(ONE, 10), Unblock(WIDE)],
                15,
                false,
                false,
            ),
            (
                "the wide one is unblocked early",
                vec![Block(WIDE, 20), Block(ONE, 10), Unblock(WIDE)],
                9,
                true,
                false,
            ),
            (
                "the one is unblocked in a wide one",
                vec![Block(WIDE, 20), Block(ONE, 10), Unblock(ONE)],
                9,
                true,
                true,
            ),
            (
                "the later end counts",
                vec![Block(ONE, 20), Block(ONE, 10)],
                15,
                true,
                false,
            ),
            (
                "without end",
                vec![Block(ONE, never), Block(ONE, 10), Expire(15)],
                1 << 40,
                true,
                false,
            ),
            (
                "three levels",
                vec![Block("198.51.0.0/16", 30), Block(ONE, 10), Block(WIDE, 20)],
                25,
                true,
                true,
            ),
            (
                "everything",
                vec![Block("0.0.0.0/0", 30), Block(WIDE, 20)],
                25,
                true,
                true,
            ),
            ("another family", vec![Block("::/0", 30)], 5, true, true),
            ("IPv6", vec![Block("2001:db8::/32", 30)], 5, false, false),
        ] {
            let (mut blocks, mut map) = (Blocks::default(), BTreeMap::new());
            for step in steps {
                let change = match step {
                    Block(prefix, until) => blocks.block(prefix.parse().unwrap(), until, 0),
                    Unblock(prefix) => blocks.unblock(prefix.parse().unwrap()),
                    Expire(now_ms) => blocks.expired(now_ms),
                };
                carry_out(&mut blocks, &mut map, &change);
            }
            assert_eq!(is_blocked(&map, ONE, now_ms), one, "{name}: one");
            assert_eq!(
                is_blocked(&map, "198.51.100.8", now_ms),
                other,
                "{name}: other"
            );
            let again = Blocks::of(
                map.iter()
                    .map(|(&key, &block)| (prefix(key), block))
                    .collect(),
            );
            assert_eq!(again.held, blocks.held, "{name}: after a restart");
        }
    }

    #[test]
    fn a_repeated_or_missing_block_changes_nothing() {
        let mut blocks = Blocks::default();
        let one = "2001:db8::/64".parse().unwrap();
        let change = blocks.block(one, 10, 0);
        assert_eq!(change.write.len(), 1);
        blocks.apply(&change);
        assert_eq!(blocks.block(one, 10, 0), BlockChange::default());
        assert_eq!(blocks.block(one, 5, 0), BlockChange::default());
        let other = "2001:db8::/65".parse().unwrap();
        assert_eq!(blocks.unblock(other), BlockChange::default());
        assert_eq!(blocks.wider(other, 9).map(|(prefix, _)| prefix), Some(one));
        assert_eq!(blocks.wider(other, 10), None);
    }
}
