//! Drops large values where nothing waits for it.

use std::thread;

/// Drops a value in another thread: the tables and doors of a large configuration take a tenth of a second.
pub(crate) fn discard(value: impl Send + 'static) {
    // If no thread can be started, it is dropped here.
    drop(thread::Builder::new().spawn(move || drop(value)));
}
