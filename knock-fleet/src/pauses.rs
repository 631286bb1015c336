//! Pauses between attempts, drawn at random so that many hosts do not connect at the same moment.

use std::time::Duration;

/// The bounds of pauses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    /// The longest one before the first connection.
    pub(crate) first: Duration,
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
}

/// Those of hosts. All hosts that start at once connect within a second: a door may be closed until then.
pub(crate) const PAUSES: Pauses = Pauses {
    first: Duration::from_secs(1),
    shortest: Duration::from_millis(20),
    longest: Duration::from_secs(5),
};

impl Pauses {
    /// Draws the pause before the first connection.
    pub(crate) fn before_first(self) -> Duration {
        self.first.mul_f64(rand::random())
    }

    /// Draws the pause after attempts that failed. With the number of failures the range grows; it is the full one at
    /// once where another watch delivers meanwhile, because there is no hurry.
    pub(crate) fn after(self, failures: u32, is_another_there: bool) -> Duration {
        let doubled = self.shortest * 5 * (1 << failures.min(8));
        let most = if is_another_there {
            self.longest
        } else {
            doubled.min(self.longest)
        };
        self.shortest + most.saturating_sub(self.shortest).mul_f64(rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_within_their_bounds() {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        for (name, failures, is_another_there, most) in [
            ("the first failure", 0, false, ms(100)),
            ("the third", 2, false, ms(400)),
            ("many", u32::MAX, false, s(5)),
            ("the first, while another watch delivers", 0, true, s(5)),
        ] {
            let drawn: Vec<_> = (0..1_000)
                .map(|_| PAUSES.after(failures, is_another_there))
                .collect();
            let (least, greatest) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
            assert!(*least >= ms(20), "{name}: {least:?}");
            assert!(*greatest <= most, "{name}: {greatest:?}");
            assert!(*greatest > most / 2, "{name}: {greatest:?}");
        }
        for _ in 0..1_000 {
            assert!(PAUSES.before_first() <= s(1));
        }
    }
}
