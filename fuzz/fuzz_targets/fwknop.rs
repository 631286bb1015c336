//! Any bytes as a packet of fwknop, and as the text inside one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::fwknop::check(data));
