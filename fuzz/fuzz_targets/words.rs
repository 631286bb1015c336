//! Any word as a duration, a knock, ports.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::words::check(data));
