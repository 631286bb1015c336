//! Estimates how hard a sequence is to guess, without and with a scan of the host.
//!
//! May use `model`. Must not know the kernel.

mod estimate;
mod repeats;
#[cfg(test)]
mod tests;
mod text;

pub use self::{
    estimate::{Candidates, SYMBOLS, Scanned, Strength, View, arrangements},
    text::span,
};
pub(crate) use self::{
    estimate::{blind_bits, counted},
    repeats::{Repetition, repetition},
    text::number,
};
