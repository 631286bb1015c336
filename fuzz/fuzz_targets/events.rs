//! Any events from the kernel side.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::events::check(data));
