//! Any bytes as a knockd.conf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::import::check(data));
