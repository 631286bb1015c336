//! Notices that the machine was suspended.

use std::{
    future::pending,
    os::fd::OwnedFd,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    unistd,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::host::clock;

/// The least difference that counts as a suspend: the two clocks are read one after the other.
const LEAST: Duration = Duration::from_millis(50);
/// A time of expiry that is never reached.
const NEVER: Duration = Duration::from_secs(50 * 365 * 24 * 3600);

/// Detects a suspend by `CLOCK_BOOTTIME`, which counts it, and `CLOCK_MONOTONIC`, which does not.
#[derive(Debug)]
pub struct Resume {
    slept: Duration,
    /// The kernel cancels this timer when the wall clock is set, and after a resume
    /// (`timerfd_resume()`, Linux 5.15), so this process is woken earlier than by its next tick.
    timer: Option<AsyncFd<OwnedFd>>,
}

impl Resume {
    /// Starts to watch. It must be called inside a tokio runtime.
    pub fn watch() -> Self {
        let timer = timer().unwrap_or_else(|error| {
            tracing::debug!("a resume is noticed at the next look: {error:#}");
            None
        });
        Self {
            slept: clock::slept(),
            timer,
        }
    }

    /// Waits until there may have been a suspend.
    pub async fn may_have_slept(&mut self) {
        let Some(timer) = &mut self.timer else {
            return pending().await;
        };
        let Ok(mut ready) = timer.readable_mut().await else {
            return pending().await;
        };
        // `ECANCELED`; the timer stays set.
        let read = unistd::read(ready.get_inner(), &mut [0; 8]);
        ready.clear_ready();
        if !matches!(read, Err(Errno::ECANCELED | Errno::EAGAIN)) {
            self.timer = None;
        }
    }

    /// Returns whether the machine was suspended since the last call.
    pub fn was_asleep(&mut self) -> bool {
        let before = std::mem::replace(&mut self.slept, clock::slept());
        self.slept.saturating_sub(before) >= LEAST
    }
}

fn timer() -> Result<Option<AsyncFd<OwnedFd>>> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let timer = TimerFd::new(
        ClockId::CLOCK_REALTIME,
        TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
    )
    .context("making a timer")?;
    timer
        .set(
            Expiration::OneShot(TimeSpec::from_duration(since_1970.saturating_add(NEVER))),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
        )
        .context("setting a timer")?;
    Ok(Some(readable(timer.into())?))
}

#[expect(
    deprecated,
    reason = "its successor is unsafe because a descriptor could be closed; this one is closed when it is dropped"
)]
fn readable(timer: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(timer, Interest::READABLE).context("watching a timer")
}
