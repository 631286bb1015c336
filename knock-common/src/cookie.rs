//! SYN cookies: a source that sends one back proves that it receives packets to its address. A cookie is a keyed hash
//! of the connection, so no state is kept.

use crate::{
    Address, Subprograms,
    connection::Connection,
    layout::Config,
    siphash::{SipKey, siphash},
    time::{Moment, SKEW_MS},
};

/// The length of an epoch, as a power of two of nanoseconds: 68.7 seconds. A cookie is valid until the end of the next
/// epoch.
const EPOCH_SHIFT: u32 = 36;

/// For how many epochs a key is used, as a power of two: 64, which are 73 minutes. Then the other key is used, and this
/// one can be replaced.
const TURN_SHIFT: u32 = 6;

/// The secret key of cookies.
pub type CookieKey = SipKey;

/// Returns the epoch of a moment.
#[inline(always)]
const fn epoch(now: Moment) -> u32 {
    (now.nanos() >> EPOCH_SHIFT) as u32
}

/// Returns the turn of an epoch; keys change with the turn.
#[inline(always)]
const fn turn(epoch: u32) -> u32 {
    epoch >> TURN_SHIFT
}

/// Returns the index of the key that is used in a turn.
#[inline(always)]
pub const fn place(turn: u32) -> usize {
    (turn & 1) as usize
}

/// Returns the key that is used in an epoch.
#[inline(always)]
pub fn key_in(config: &Config, epoch: u32) -> CookieKey {
    let [even, odd] = config.cookie_keys;
    if place(turn(epoch)) == 0 { even } else { odd }
}

/// Returns the next turn, if its key can be replaced now; `None` while cookies of the previous turn, which has the same
/// key, are valid.
pub const fn next_turn(now: Moment) -> Option<u32> {
    let epoch = epoch(now);
    // The last cookies of a turn are valid in the first epoch of the next turn, and a moment longer on a CPU whose
    // clock is behind.
    if epoch & ((1 << TURN_SHIFT) - 1) < 2 {
        return None;
    }
    Some(turn(epoch).wrapping_add(1))
}

/// Returns the current cookie of a connection.
#[inline(always)]
pub fn make<E: Subprograms>(env: &E, connection: &Connection, now: Moment) -> u32 {
    env.cookie(connection, epoch(now))
}

/// Returns the distance of a number from the nearer one of a connection's two valid cookies, those of this epoch and of
/// the previous one: 0 for a valid cookie.
#[inline(always)]
pub fn distance<E: Subprograms>(env: &E, connection: &Connection, number: u32, now: Moment) -> u32 {
    // Another CPU's clock may be ahead, and in the next epoch.
    let latest = epoch(now.after_millis(SKEW_MS));
    let newer = number.wrapping_sub(env.cookie(connection, latest));
    let older = number.wrapping_sub(env.cookie(connection, latest.wrapping_sub(1)));
    newer.min(older)
}

/// Returns the cookie of a connection in an epoch, with the key of the configuration.
#[inline(always)]
pub fn in_epoch<E: Subprograms>(env: &E, connection: &Connection, epoch: u32) -> u32 {
    let key = env.config().map_or([0; 2], |config| key_in(config, epoch));
    of(key, connection, epoch)
}

/// Returns the cookie of a connection in an epoch, with a given key.
#[inline(always)]
pub fn of(key: CookieKey, connection: &Connection, epoch: u32) -> u32 {
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

/// Derives a key for cookies from another secret.
pub fn key(secret: [u64; 12]) -> CookieKey {
    let [k0, k1, rest @ ..] = secret;
    let half = |number: u64| {
        let [a, b, c, d, e, f, g, h, i, j] = rest;
        siphash([k0, k1], [a, b, c, d, e, f, g, h, i, j, number])
    };
    [half(0), half(1)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sim::Sim;

    const EPOCH: u64 = 1 << EPOCH_SHIFT;

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
        /// Each bit of a connection changes its cookie.
        #[test]
        fn other_connections_have_other_cookies(key: CookieKey, one in connection(), bit in 0..288_usize, epoch: u32) {
            let mut other = one;
            bytemuck::bytes_of_mut(&mut other)[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(of(key, &one, epoch), of(key, &other, epoch));
            prop_assert_ne!(of(key, &one, epoch), of(key, &one, epoch.wrapping_add(1)));
        }

        #[test]
        fn keys_depend_on_each_word_of_the_secret(secret: [u64; 12], place in 0..12_usize) {
            let mut other = secret;
            other[place] ^= 1;
            let [a, b] = key(secret);
            prop_assert_ne!(a, b);
            prop_assert_ne!(key(secret), key(other));
        }

        /// A cookie is valid for at least an epoch, and for at most two.
        #[test]
        fn cookies_expire_after_one_to_two_epochs(
            keys: [CookieKey; 2],
            one in connection(),
            made in 0_u64..1 << 50,
            later in 0_u64..1 << 38,
        ) {
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
            // The ACK of a FIN has the next number.
            prop_assert!(!good || distance(&sim, &one, cookie.wrapping_add(1), now) == 1);
        }

        /// Replacing a key never invalidates a cookie that is younger than an epoch.
        #[test]
        fn new_keys_keep_recent_cookies_valid(
            keys: [CookieKey; 2],
            new: CookieKey,
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
    fn a_key_can_be_replaced_from_the_third_epoch_of_a_turn() {
        let at = |epoch: u64| Moment::from_nanos(epoch << EPOCH_SHIFT);
        for (name, epoch, next, key) in [
            (
                "first epoch: the previous turn's cookies are valid",
                64,
                None,
                'b',
            ),
            (
                "second epoch: valid on a CPU whose clock is behind",
                65,
                None,
                'b',
            ),
            ("third epoch", 66, Some(2), 'b'),
            ("last epoch of the turn", 127, Some(2), 'b'),
            ("first epoch of the next turn", 128, None, 'a'),
            ("last epoch of the next turn", 191, Some(3), 'a'),
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
    fn a_cpu_with_a_slow_clock_accepts_a_newer_cookie() {
        let mut sim = Sim::default();
        sim.config.cookie_keys = [[1, 2], [3, 4]];
        let one = Connection::default();
        let next = Moment::from_nanos(5 << EPOCH_SHIFT);
        let cookie = make(&sim, &one, next);
        let behind = Moment::from_nanos((5 << EPOCH_SHIFT) - SKEW_MS * 1_000_000);
        assert_eq!(distance(&sim, &one, cookie, behind), 0);
    }
}
