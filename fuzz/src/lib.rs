//! Fuzz targets. A target is one function that takes any bytes, and panics if a property fails that must
//! hold for all bytes.
//!
//! `cargo xtask fuzz` hands the targets to libFuzzer. `tests/targets.rs` runs the same functions on the
//! corpus and on deterministic mutations of it ([`mutate`]), with the stable toolchain.
//!
//! To add a target: a module here with a function `check`, a line in [`TARGETS`], a program in
//! `fuzz_targets`, and a directory in `corpus`.

pub mod config;
pub mod control;
pub mod events;
pub mod fleet;
pub mod fwknop;
pub mod fwknoprc;
pub mod import;
mod input;
pub mod judge;
pub mod keys;
pub mod mutate;
pub mod one_time;
pub mod parser;
pub mod reply;
mod text;
pub mod words;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// Its name, also that of its program, corpus and dictionary.
    pub name: &'static str,
    /// Panics if something does not hold for these bytes.
    pub check: fn(&[u8]),
    /// How many mutations `cargo test` runs: what takes a second or two without optimisation.
    pub mutations: u32,
}

/// All targets.
pub const TARGETS: &[FuzzTarget] = &[
    target("parser", parser::check, 50_000),
    target("judge", judge::check, 400),
    target("events", events::check, 100),
    target("config", config::check, 200),
    target("one_time", one_time::check, 3_000),
    target("control", control::check, 10_000),
    target("import", import::check, 100),
    target("fwknoprc", fwknoprc::check, 800),
    target("fwknop", fwknop::check, 2_000),
    target("keys", keys::check, 1_000),
    target("reply", reply::check, 20_000),
    target("words", words::check, 10_000),
    target("fleet", fleet::check, 2_000),
];

const fn target(name: &'static str, check: fn(&[u8]), mutations: u32) -> FuzzTarget {
    FuzzTarget {
        name,
        check,
        mutations,
    }
}
