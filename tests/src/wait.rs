//! Waiting for conditions, never for time alone.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long something that must happen may take on a busy machine. Attaching a program waits for a grace period of the
/// kernel (`synchronize_rcu()`), and for all other processes that attach one.
pub const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(3);

/// Calls a function until it returns a value; `None` if it does not in time.
pub fn poll<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// It does not hold in time; the message has `what`.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let held = poll(PATIENCE, || condition().then_some(()));
    assert!(held.is_some(), "waited {PATIENCE:?} for this: {what}");
}
