//! Any bytes as a host's answer to the client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::reply::check(data));
