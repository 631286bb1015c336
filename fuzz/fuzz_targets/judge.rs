//! Any script of frames and pauses.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::judge::check(data));
