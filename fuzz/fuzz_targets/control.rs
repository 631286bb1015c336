//! Any line on the control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| knock_fuzz::control::check(data));
