//! When the next renewal is due. Nothing here waits.

use super::error::KeepError;
use crate::otp::CheckedOtp;
use crate::plan::{KnockPlan, KnockSource, Method};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How long a door opens unless its configuration has another `open_for`.
const OPEN_FOR: Duration = Duration::from_secs(30);
/// The most time that is left for further tries when a renewal is due.
const MARGIN_MAX: Duration = Duration::from_secs(60);
/// The shortest time between renewals, whatever the host answers.
const SHORTEST: Duration = Duration::from_millis(500);
/// The shortest grants for which lines of a one-time file are used: at most seven lines an hour.
const ONE_TIME_LEAST: Duration = Duration::from_secs(600);
/// The pause after the first failure; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How renewals are spread over the time of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spacing {
    /// A lost renewal is noticed, or each one costs a sequence: shortly before the end.
    Late,
    /// A lost renewal is not noticed: twice within the time of a grant.
    Twice,
}

/// The times of renewals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    spacing: Spacing,
    /// How long a grant lasts, unless the host answers with another time.
    open_for: Duration,
}

impl Schedule {
    /// Returns the schedule for a plan.
    ///
    /// # Errors
    ///
    /// Renewals would waste one-time lines, or have no time-based sequence of their own.
    pub(super) fn of_plan(plan: &KnockPlan) -> Result<Self, KeepError> {
        let (spacing, asked) = match &plan.method {
            Method::Packet(spa) if spa.closes() => return Err(KeepError::Closes),
            Method::Packet(spa) => (
                match spa.is_answered() {
                    true => Spacing::Late,
                    false => Spacing::Twice,
                },
                spa.seconds()
                    .map(|seconds| Duration::from_secs(seconds.into())),
            ),
            Method::Knocks(KnockSource::Sequence(_)) => (Spacing::Twice, None),
            Method::Knocks(KnockSource::OneTime(_) | KnockSource::Otp(_)) => (Spacing::Late, None),
        };
        let schedule = Self {
            spacing,
            open_for: plan.open_for.or(asked).unwrap_or(OPEN_FOR),
        };
        match &plan.method {
            Method::Knocks(KnockSource::OneTime(file)) => schedule.check_one_time(file.clone())?,
            Method::Knocks(KnockSource::Otp(otp)) => schedule.check_otp(otp)?,
            Method::Packet(_) | Method::Knocks(KnockSource::Sequence(_)) => {}
        }
        Ok(schedule)
    }

    fn check_one_time(self, file: PathBuf) -> Result<(), KeepError> {
        match self.open_for < ONE_TIME_LEAST {
            true => Err(KeepError::WastesLines {
                file,
                every: seconds_up(self.next(None)),
                open_for: self.open_for,
            }),
            false => Ok(()),
        }
    }

    /// Checks that a renewal is due no sooner than the next sequence: that of a period opens once.
    fn check_otp(self, otp: &CheckedOtp) -> Result<(), KeepError> {
        let period = otp.period();
        match self.next(None) < period {
            true => Err(KeepError::ShorterThanPeriod {
                period,
                open_for: self.open_for,
                least: seconds_up((period * 3 / 2).min(period + MARGIN_MAX)),
            }),
            false => Ok(()),
        }
    }

    /// Returns how long the grant lasts that was obtained, where the host may have answered that.
    pub(super) fn grant(self, answered: Option<Duration>) -> Duration {
        answered.unwrap_or(self.open_for)
    }

    /// Returns the time between a success and the next renewal.
    pub(super) fn next(self, answered: Option<Duration>) -> Duration {
        let grant = self.grant(answered);
        let next = match self.spacing {
            Spacing::Late => grant - (grant / 3).min(MARGIN_MAX),
            Spacing::Twice => grant * 2 / 5,
        };
        next.max(SHORTEST)
    }
}

/// Returns the pause after this many failures in a row, from 1: 1 s, 2 s, 4 s and so on to 60 s.
pub(super) fn pause(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1));
    doubled
        .and_then(|times| FIRST_PAUSE.checked_mul(times))
        .map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE))
}

/// A moment whose age includes the time for which this machine was suspended.
///
/// [`Instant`] stops while Linux and macOS are suspended, and the wall clock can be set. An age that is too great
/// only means an early renewal, so the greater one counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct SuspendAwareMoment {
    monotonic: Instant,
    wall: SystemTime,
}

impl SuspendAwareMoment {
    pub(super) fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Returns the time since then.
    pub(super) fn age(self) -> Duration {
        let wall = self.wall.elapsed().unwrap_or_default();
        self.monotonic.elapsed().max(wall)
    }
}

/// Rounds up to whole seconds.
fn seconds_up(time: Duration) -> Duration {
    let more = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(time.as_secs().saturating_add(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_renewal_leaves_time_for_further_tries() {
        let (late, twice) = (Spacing::Late, Spacing::Twice);
        for (name, spacing, open_for, answered, next_ms) in [
            ("answered, the usual time", late, 30, None, 20_000),
            ("the host gives less", late, 600, Some(seconds(30)), 20_000),
            ("ten minutes", late, 600, None, 540_000),
            ("a day", late, 86_400, None, 86_340_000),
            ("a second", late, 1, None, 667),
            ("an answer of nothing", late, 30, Some(seconds(0)), 500),
            ("unanswered, the usual time", twice, 30, None, 12_000),
            ("unanswered, ten minutes", twice, 600, None, 240_000),
        ] {
            let schedule = Schedule {
                spacing,
                open_for: seconds(open_for),
            };
            let next = schedule.next(answered);
            let rounded = (next.as_micros() + 500) / 1_000;
            assert_eq!(rounded, next_ms, "{name}");
        }
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        for (failures, expected) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (6, 32),
            (7, 60),
            (40, 60),
            (u32::MAX, 60),
        ] {
            assert_eq!(pause(failures), seconds(expected), "{failures} failures");
        }
    }

    #[test]
    fn one_time_lines_are_not_wasted() {
        for (open_for, is_fine) in [(30, false), (599, false), (600, true)] {
            let schedule = Schedule {
                spacing: Spacing::Late,
                open_for: seconds(open_for),
            };
            let checked = schedule.check_one_time(PathBuf::from("once"));
            assert_eq!(checked.is_ok(), is_fine, "{open_for} s: {checked:?}");
        }
    }
}
