//! Reads the boot clock, which the kernel side uses, and converts its times to wall time.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Result, bail};
use jiff::{SignedDuration, Timestamp};
use knock_sequence::duration::millis;

use nix::time::{ClockId, clock_gettime};

/// The inode number of the host's own time namespace (`PROC_TIME_INIT_INO`).
const HOST_NAMESPACE: u64 = 0xEFFF_FFFA;

/// Checks that this process reads the same `CLOCK_BOOTTIME` as the kernel side, which knows no time
/// namespaces.
///
/// # Errors
/// It reads another one, or the kernel does not report it.
pub fn check() -> Result<()> {
    const CURE: &str = "grants and knocks are timed by the kernel with the host's clock, so they would \
                        end at other times than knock-user says: run it in the host's time namespace, \
                        as with `nsenter --time=/proc/1/ns/time knock-user ...`";
    let namespace = |name| fs::metadata(format!("/proc/self/ns/{name}")).map(|found| found.ino());
    let own = match namespace("time") {
        // A kernel without time namespaces has one clock. Without /proc the check is impossible.
        Err(_) | Ok(HOST_NAMESPACE) => return Ok(()),
        Ok(own) => own,
    };
    // The file describes the namespace of future children.
    let offsets = match namespace("time_for_children") {
        Ok(children) if children == own => fs::read_to_string("/proc/self/timens_offsets").ok(),
        Ok(_) | Err(_) => None,
    };
    match offsets.and_then(|text| boottime_offset(&text)) {
        Some(0) => Ok(()),
        Some(offset_ns) => {
            let offset = u64::try_from(offset_ns.unsigned_abs()).unwrap_or(u64::MAX);
            let seconds = Duration::from_nanos(offset).as_secs_f64();
            let relation = if offset_ns < 0 { "behind" } else { "ahead of" };
            bail!(
                "this time namespace's boot clock is {seconds} s {relation} the host's, and {CURE}"
            )
        }
        None => bail!("this time namespace's boot clock may differ from the host's, and {CURE}"),
    }
}

/// Returns the offset of the boot clock in nanoseconds from a line like `boottime 86400 0`
/// (seconds, nanoseconds).
fn boottime_offset(text: &str) -> Option<i128> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_boottime = matches!(words.next()?, "boottime" | "7");
        let seconds: i64 = words.next()?.parse().ok()?;
        let nanos: i64 = words.next()?.parse().ok()?;
        is_boottime.then(|| i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
    })
}

/// Returns nanoseconds of `CLOCK_BOOTTIME`.
pub fn boot_ns() -> u64 {
    // The only errors of clock_gettime(2) are an unknown clock and a bad pointer.
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else {
        return 0;
    };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// Returns the wall clock minus the boot clock, in nanoseconds; 0 if the wall clock is behind.
pub fn wall_ns() -> u64 {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    // What is read between two looks at the boot clock belongs to their middle.
    let before = read(ClockId::CLOCK_BOOTTIME);
    let wall = read(ClockId::CLOCK_REALTIME);
    let after = read(ClockId::CLOCK_BOOTTIME);
    let offset = wall.saturating_sub((before + after) / 2);
    u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns how long the machine was suspended since boot. The two clocks are read one after the
/// other, so it is not exact.
pub fn slept() -> Duration {
    let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    let awake = read(ClockId::CLOCK_MONOTONIC);
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(awake)
}

/// Returns milliseconds of `CLOCK_BOOTTIME`, the unit in which grants and flows end.
pub fn boot_ms() -> u64 {
    boot_ns() / 1_000_000
}

/// Returns `CLOCK_BOOTTIME` after this duration, in milliseconds.
pub fn boot_ms_after(time: Duration) -> u64 {
    boot_ms().saturating_add(millis(time))
}

/// Returns milliseconds since 1970 by the wall clock.
pub fn unix_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Returns the wall time at which `CLOCK_BOOTTIME` was 0.
pub fn booted_at() -> Timestamp {
    let since = i64::try_from(boot_ns()).unwrap_or(i64::MAX);
    Timestamp::now()
        .checked_sub(SignedDuration::from_nanos(since))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The wall clock of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WallClock {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

impl WallClock {
    /// Reads it.
    pub fn now() -> Self {
        Self { unix_ms: unix_ms() }
    }

    /// Returns whether a time service keeps it right, as adjtimex(2) reports; none if that can't be
    /// asked. The call is unsafe in libc, so systemd's program makes it.
    pub fn is_synchronised() -> Option<bool> {
        let output = Command::new("/usr/bin/timedatectl")
            .args(["show", "--property=NTPSynchronized", "--value"])
            // A start waits for this, also where nothing answers on the bus.
            .env("SYSTEMD_BUS_TIMEOUT", "1s")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        match output.stdout.trim_ascii() {
            b"yes" => Some(true),
            b"no" => Some(false),
            _ => None,
        }
    }
}

/// Converts times of the kernel side to wall time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clock {
    /// The current time, in milliseconds since boot.
    pub now_ms: u64,
    /// The wall time of the boot.
    pub boot: Timestamp,
}

impl Clock {
    /// Reads both clocks.
    pub fn now() -> Self {
        Self {
            now_ms: boot_ms(),
            boot: booted_at(),
        }
    }

    /// Formats a time as RFC 3339.
    pub fn wall(&self, at_ms: u64) -> String {
        let since_boot = SignedDuration::from_millis(i64::try_from(at_ms).unwrap_or(i64::MAX));
        format!(
            "{:.3}",
            self.boot.saturating_add(since_boot).unwrap_or(self.boot)
        )
    }

    /// Returns the seconds until a time.
    pub fn seconds_until(&self, at_ms: u64) -> f64 {
        Duration::from_millis(at_ms.saturating_sub(self.now_ms)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_time_namespaces_are_parsed() {
        for (name, text, expected) in [
            ("none", "monotonic 0 0\nboottime 0 0\n", Some(0)),
            (
                "as the kernel aligns it",
                "monotonic           0         0\nboottime        86400         0\n",
                Some(86_400_000_000_000),
            ),
            (
                "negative",
                "monotonic 5 0\nboottime -60 1\n",
                Some(-59_999_999_999),
            ),
            ("nanoseconds alone", "boottime 0 1\n", Some(1)),
            ("by number", "1 0 0\n7 3 0\n", Some(3_000_000_000)),
            ("monotonic alone", "monotonic 86400 0\n", None),
            ("something else", "boottime x y\n", None),
            ("empty", "", None),
        ] {
            assert_eq!(boottime_offset(text), expected, "{name}");
        }
    }
}
