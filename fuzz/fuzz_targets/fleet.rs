//! Any bytes as lines of `knock-fleet` and as the key of a group.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::fleet::check(data));
