//! Moments and ticks, in which the kernel side measures time.

/// A moment of `CLOCK_BOOTTIME`, which counts suspend, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(u64);

/// Nanoseconds in a millisecond.
pub const NANOS_PER_MILLI: u64 = 1_000_000;

/// Nanoseconds in a tick, as a power of two: 4.19 ms.
const TICK_SHIFT: u32 = 22;

/// Bits of the tick count that are kept with a knock: it wraps after 9.8 hours.
pub const TICK_BITS: u32 = 23;

/// The part of the tick count that is kept.
pub const TICK_MASK: u32 = (1 << TICK_BITS) - 1;

/// The most by which one CPU's clock is ahead of another's, in ticks: it is read once per timer tick, 10 ms at 100 Hz.
const SKEW: u32 = 4;

/// The same in milliseconds.
pub const SKEW_MS: u64 = (SKEW as u64) << TICK_SHIFT >> 20;

/// Ages below this many ticks (1.07 s) before the wrap are an earlier packet's time that lies ahead of this CPU's
/// clock. [`SKEW`] does not bound that: while a hypervisor does not run the virtual CPU that counts the timer ticks,
/// one CPU keeps the time of its first packet in the tick, and another one reads the clock later in the same tick.
const AHEAD: u32 = 256;

/// The same in milliseconds.
pub const AHEAD_MS: u64 = (AHEAD as u64) << TICK_SHIFT >> 20;

/// Knock times are kept in ticks of 2²² ns (4.19 ms), modulo 2²³ (9.8 hours).
///
/// `sequence_timeout` and `step_timeout` are therefore exact to one tick; grants are not counted in ticks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tick(u32);

impl Moment {
    /// Returns a moment from nanoseconds since boot.
    #[inline(always)]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    #[inline(always)]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since boot: the unit in which grants and flows end.
    #[inline(always)]
    pub const fn millis(self) -> u64 {
        // The verifier accepts a division by a constant.
        self.0 / 1_000_000
    }

    /// Returns the moment `millis` later; durations here are bounded by the configuration, far below the
    /// 584 years at which this would wrap.
    #[inline(always)]
    pub const fn after_millis(self, millis: u64) -> Self {
        // BPF has no 128-bit product, which a checked multiplication would need.
        Self(self.0.wrapping_add(millis.wrapping_mul(1_000_000)))
    }

    /// Returns the moment `ticks` later.
    #[inline(always)]
    pub const fn after_ticks(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add((ticks as u64) << TICK_SHIFT))
    }

    /// Returns the moment `ticks` earlier.
    #[inline(always)]
    pub const fn before_ticks(self, ticks: u32) -> Self {
        Self(self.0.wrapping_sub((ticks as u64) << TICK_SHIFT))
    }

    /// Returns the tick that this moment lies in.
    #[inline(always)]
    pub const fn tick(self) -> Tick {
        Tick((self.0 >> TICK_SHIFT) as u32 & TICK_MASK)
    }
}

impl Tick {
    /// Returns a tick from its number; bits above [`TICK_BITS`] are dropped.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self(number & TICK_MASK)
    }

    /// Returns the number of the tick, below 2²³.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Ticks from `earlier` to this one; 0 if `earlier` is from another CPU, whose clock is ahead by up to
    /// 256 ticks.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        let ticks = self.0.wrapping_sub(earlier.0) & TICK_MASK;
        if ticks > TICK_MASK - AHEAD { 0 } else { ticks }
    }
}

/// Returns the number of whole ticks in `nanos`, rounded up so that no time limit is cut short.
pub const fn ticks_in(nanos: u64) -> u64 {
    nanos.div_ceil(1 << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_wrap_and_round_up() {
        for (name, now, earlier, ticks) in [
            ("the same", 7, 7, 0),
            ("later", 12, 7, 5),
            ("over the wrap", 3, TICK_MASK, 4),
            ("another CPU's clock is ahead", 7, 8, 0),
            ("ahead by a stalled tick of 60 ms", 7, 22, 0),
            ("as far ahead as it can be", 7, 263, 0),
            ("long ago, not ahead", 7, 264, TICK_MASK - 256),
        ] {
            let now = Tick::from_number(now);
            assert_eq!(now.since(Tick::from_number(earlier)), ticks, "{name}");
        }
        assert_eq!(Moment::from_nanos((1 << TICK_SHIFT) - 1).tick().number(), 0);
        assert_eq!(Moment::from_nanos(1 << TICK_SHIFT).tick().number(), 1);
        assert_eq!(ticks_in(1), 1);
        assert_eq!(ticks_in(0), 0);
        assert_eq!(ticks_in((1 << TICK_SHIFT) + 1), 2);
    }
}
