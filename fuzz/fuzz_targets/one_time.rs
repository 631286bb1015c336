//! Any bytes as a one-time file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::one_time::check(data));
