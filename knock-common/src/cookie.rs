//! The number that a source has to send back, and thereby proves that packets to its address reach
//! it: a keyed hash of who connects to what, so nothing has to be remembered meanwhile.

use bytemuck::{Pod, Zeroable};

use crate::{
    Address, Env,
    layout::Config,
    time::{Moment, SKEW_MS},
};

/// How long a cookie is made the same way, as a power of two of nanoseconds: 68.7 seconds. It is
/// good until the end of the next such time.
const EPOCH_SHIFT: u32 = 36;

/// For how many epochs a key is used, as a power of two: 64, which are 73 minutes. Then it is the
/// other key's turn, and this one can be drawn anew.
const TURN_SHIFT: u32 = 6;

/// What has to be random about a cookie.
pub type Key = [u64; 2];

/// A connection that somebody asks for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Connection {
    /// Who asks.
    pub source: Address,
    /// Whom.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub port: u16,
}

/// The number of the time in which cookies are made the same way.
#[inline(always)]
const fn epoch(now: Moment) -> u32 {
    (now.nanos() >> EPOCH_SHIFT) as u32
}

/// The number of the turn of keys that an epoch lies in.
#[inline(always)]
const fn turn(epoch: u32) -> u32 {
    epoch >> TURN_SHIFT
}

/// Which of the two keys is used in a turn.
#[inline(always)]
pub const fn place(turn: u32) -> usize {
    (turn & 1) as usize
}

/// The key that is used in an epoch.
#[inline(always)]
pub fn key_in(config: &Config, epoch: u32) -> Key {
    let [even, odd] = config.cookie_keys;
    if place(turn(epoch)) == 0 { even } else { odd }
}

/// The number of the next turn, whose key can be drawn now; `None` while that is still needed to
/// tell the cookies of the turn before this one.
pub const fn next_turn(now: Moment) -> Option<u32> {
    let epoch = epoch(now);
    // The last cookies of a turn are good in the first epoch of the next; on a CPU whose clock is
    // behind, a moment longer.
    if epoch & ((1 << TURN_SHIFT) - 1) < 2 {
        return None;
    }
    Some(turn(epoch).wrapping_add(1))
}

/// The cookie that a connection gets now.
#[inline(always)]
pub fn make<W: Env>(env: &W, connection: &Connection, now: Moment) -> u32 {
    env.cookie(connection, epoch(now))
}

/// How far a number is from a good cookie of the connection: 0 if it is one.
///
/// Of two good cookies, this and the last time's, it is the distance to the nearer one.
#[inline(always)]
pub fn distance<W: Env>(env: &W, connection: &Connection, number: u32, now: Moment) -> u32 {
    // Another CPU's clock may be ahead, and in the next time already.
    let latest = epoch(now.after_millis(SKEW_MS));
    let newer = number.wrapping_sub(env.cookie(connection, latest));
    let older = number.wrapping_sub(env.cookie(connection, latest.wrapping_sub(1)));
    newer.min(older)
}

/// The cookie of a connection in an epoch, under the world's key.
#[inline(always)]
pub fn in_epoch<W: Env>(env: &W, connection: &Connection, epoch: u32) -> u32 {
    let key = env.config().map_or([0; 2], |config| key_in(config, epoch));
    of(key, connection, epoch)
}

/// The cookie of a connection in an epoch.
#[inline(always)]
pub fn of(key: Key, connection: &Connection, epoch: u32) -> u32 {
    let Connection {
        source: Address {
            words: [a, b, c, d],
        },
        destination: Address {
            words: [e, f, g, h],
        },
        source_port,
        port,
    } = *connection;
    let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let ports = u32::from(port) << 16 | u32::from(source_port);
    let words = [
        pair(a, b),
        pair(c, d),
        pair(e, f),
        pair(g, h),
        pair(ports, epoch),
    ];
    siphash(key, words) as u32
}

/// A key for cookies from another secret.
pub fn key(secret: [u64; 12]) -> Key {
    let [k0, k1, rest @ ..] = secret;
    let half = |number: u64| {
        let [a, b, c, d, e, f, g, h, i, j] = rest;
        siphash([k0, k1], [a, b, c, d, e, f, g, h, i, j, number])
    };
    [half(0), half(1)]
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of whole words, of which the first octet is the
/// lowest.
#[inline(always)]
pub fn siphash<const N: usize>(key: Key, words: [u64; N]) -> u64 {
    let [k0, k1] = key;
    let mut state = State([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    for word in words {
        state.compress(word);
    }
    // The last word has the length in octets.
    state.compress((N as u64) << 59);
    state.finish()
}

struct State([u64; 4]);

impl State {
    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }

    #[inline(always)]
    fn compress(&mut self, word: u64) {
        let [_, _, _, d] = &mut self.0;
        *d ^= word;
        self.round();
        self.round();
        let [a, _, _, _] = &mut self.0;
        *a ^= word;
    }

    #[inline(always)]
    fn finish(mut self) -> u64 {
        let [_, _, c, _] = &mut self.0;
        *c ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.round();
        let [a, b, c, d] = self.0;
        a ^ b ^ c ^ d
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use proptest::prelude::*;

    use super::*;
    use crate::sim::Sim;

    const EPOCH: u64 = 1 << EPOCH_SHIFT;

    #[test]
    fn published_vectors() {
        // Of the reference implementation: key 00 01 … 0f, input 00 01 …, for lengths of whole words.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let word = |index: u64| 0x0706_0504_0302_0100 + index * 0x0808_0808_0808_0808;
        for (name, hash, expected) in [
            ("0 octets", siphash(key, []), 0x726f_db47_dd0e_0e31),
            ("8 octets", siphash(key, [word(0)]), 0x93f5_f579_9a93_2462),
            (
                "16 octets",
                siphash(key, [word(0), word(1)]),
                0x3f2a_cc7f_57c2_9bdb,
            ),
        ] {
            assert_eq!(hash, expected, "{name}");
        }
    }

    /// The standard library had one; it is still there, and nobody took it from here.
    #[expect(deprecated, reason = "the only other SipHash-2-4 that is at hand")]
    fn other_siphash(key: Key, words: &[u64]) -> u64 {
        let [k0, k1] = key;
        let mut hasher = std::hash::SipHasher::new_with_keys(k0, k1);
        for word in words {
            hasher.write(&word.to_le_bytes());
        }
        hasher.finish()
    }

    fn connection() -> impl Strategy<Value = Connection> {
        any::<([u32; 4], [u32; 4], u16, u16)>().prop_map(
            |(source, destination, source_port, port)| Connection {
                source: Address { words: source },
                destination: Address { words: destination },
                source_port,
                port,
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_siphash(key: Key, words: [u64; 5], more: [u64; 11]) {
            prop_assert_eq!(siphash(key, words), other_siphash(key, &words));
            prop_assert_eq!(siphash(key, more), other_siphash(key, &more));
        }

        /// Everything about a connection is in its cookie.
        #[test]
        fn other_connections_have_other_cookies(key: Key, one in connection(), bit in 0..288_usize, epoch: u32) {
            let mut other = one;
            bytemuck::bytes_of_mut(&mut other)[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(of(key, &one, epoch), of(key, &other, epoch));
            prop_assert_ne!(of(key, &one, epoch), of(key, &one, epoch.wrapping_add(1)));
        }

        #[test]
        fn keys_differ(secret: [u64; 12], place in 0..12_usize) {
            let mut other = secret;
            other[place] ^= 1;
            let [a, b] = key(secret);
            prop_assert_ne!(a, b);
            prop_assert_ne!(key(secret), key(other));
        }

        /// A cookie is good for at least the length of an epoch, and not for longer than two.
        #[test]
        fn cookies_age(keys: [Key; 2], one in connection(), made in 0_u64..1 << 50, later in 0_u64..1 << 38) {
            let mut sim = Sim::default();
            sim.config.cookie_keys = keys;
            let (made, now) = (Moment::from_nanos(made), Moment::from_nanos(made + later));
            let cookie = make(&sim, &one, made);
            let good = distance(&sim, &one, cookie, now) == 0;
            if later < EPOCH - SKEW_MS * 1_000_000 {
                prop_assert!(good);
            }
            if later >= 2 * EPOCH {
                prop_assert!(!good);
            }
            // Who has seen the cookie answers with the next number.
            prop_assert!(!good || distance(&sim, &one, cookie.wrapping_add(1), now) == 1);
        }

        /// Whenever a key is drawn that can be, no cookie is lost that is younger than an epoch.
        #[test]
        fn keys_are_renewed_unseen(
            keys: [Key; 2],
            new: Key,
            one in connection(),
            turn in 1_u64..1 << 12,
            before in 0..3 * EPOCH,
            drawn in 0..EPOCH - SKEW_MS * 1_000_000,
            behind in 0..SKEW_MS * 1_000_000,
        ) {
            let mut sim = Sim::default();
            sim.config.cookie_keys = keys;
            // Around the beginning of a turn.
            let made = Moment::from_nanos((turn << TURN_SHIFT) * EPOCH + EPOCH - before);
            let cookie = make(&sim, &one, made);
            let now = Moment::from_nanos(made.nanos() + drawn);
            let Some(next) = next_turn(now) else { return Ok(()) };
            prop_assert_ne!(key_in(&sim.config, epoch(now)), keys[place(next)]);
            sim.config.cookie_keys[place(next)] = new;
            let now = Moment::from_nanos(now.nanos() - behind.min(drawn));
            prop_assert_eq!(distance(&sim, &one, cookie, now), 0);
        }
    }

    #[test]
    fn keys_take_turns() {
        let at = |epoch: u64| Moment::from_nanos(epoch << EPOCH_SHIFT);
        for (name, epoch, next, key) in [
            ("the turn before is still needed", 64, None, 'b'),
            ("for an epoch, and the clocks' difference", 65, None, 'b'),
            ("no more", 66, Some(2), 'b'),
            ("until the end", 127, Some(2), 'b'),
            ("the next turn", 128, None, 'a'),
            ("which ends, too", 191, Some(3), 'a'),
        ] {
            assert_eq!(next_turn(at(epoch)), next, "{name}");
            let config = Config {
                cookie_keys: [[1; 2], [2; 2]],
                ..Config::default()
            };
            let expected = if key == 'a' { [1; 2] } else { [2; 2] };
            assert_eq!(key_in(&config, epoch as u32), expected, "{name}");
        }
    }

    #[test]
    fn a_clock_that_is_behind() {
        let mut sim = Sim::default();
        sim.config.cookie_keys = [[1, 2], [3, 4]];
        let one = Connection::default();
        let next = Moment::from_nanos(5 << EPOCH_SHIFT);
        let cookie = make(&sim, &one, next);
        let behind = Moment::from_nanos((5 << EPOCH_SHIFT) - SKEW_MS * 1_000_000);
        assert_eq!(distance(&sim, &one, cookie, behind), 0);
    }
}
