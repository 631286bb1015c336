//! Suspends the virtual machine that a test runs in.

use std::{env, fs, time::Duration};

use nix::{
    sys::time::TimeValLike as _,
    time::{ClockId, clock_gettime},
};

/// Long enough for everything to go to sleep, however slow the machine is.
const ASLEEP: Duration = Duration::from_secs(8);

/// Returns the time of a clock.
///
/// # Panics
/// The kernel has no such clock.
#[track_caller]
pub fn read(clock: ClockId) -> Duration {
    match clock_gettime(clock) {
        Ok(time) => Duration::from_nanos(time.num_nanoseconds().unsigned_abs()),
        Err(error) => panic!("reading clock {clock}: {error}"),
    }
}

/// Panics unless the test runs in the virtual machine.
///
/// # Panics
/// It does not.
#[track_caller]
pub fn assert_it_may_be_done() {
    let given = env::var_os("KNOCK_VM").is_some();
    assert!(given, "this is done to a virtual machine: `cargo xtask vm`");
}

/// Suspends to memory; the machine's own alarm clock wakes it. Returns how long it slept.
///
/// # Panics
/// It does not sleep.
#[track_caller]
pub fn fall_asleep() -> Duration {
    let times = || [ClockId::CLOCK_BOOTTIME, ClockId::CLOCK_MONOTONIC].map(read);
    let [boot, awake] = times();
    let alarm = "/sys/class/rtc/rtc0/wakealarm";
    for (path, text) in [
        (alarm, "0".to_owned()),
        (alarm, format!("+{}", ASLEEP.as_secs())),
        ("/sys/power/state", "mem".to_owned()),
    ] {
        if let Err(error) = fs::write(path, &text) {
            panic!("writing {text} to {path}: {error}");
        }
    }
    let [boot_after, awake_after] = times();
    let slept = (boot_after - boot).saturating_sub(awake_after - awake);
    assert!(slept > Duration::from_secs(2), "asleep for {slept:?} only");
    slept
}
