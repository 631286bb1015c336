//! Any bytes as keys and answers of single packet authorization.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::keys::check(data));
