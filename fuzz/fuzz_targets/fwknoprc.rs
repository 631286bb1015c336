//! Any bytes as a file of fwknop's client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::fwknoprc::check(data));
