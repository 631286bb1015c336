//! A flag that ends threads of a test.

use std::sync::atomic::{AtomicBool, Ordering};

/// Makes the other threads stop when it is dropped, also by a panic.
#[derive(Debug)]
pub struct StopFlag<'f>(pub &'f AtomicBool);

impl Drop for StopFlag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
