//! How hard a sequence is to guess.

/// What a knock can be: any port of either protocol.
pub const SYMBOLS: u32 = 2 * 65_535;

/// The number of sequences of a length, as a power of two.
pub fn key_bits(knocks: usize) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a sequence has at most 128 knocks"
    )]
    let knocks = knocks as f64;
    f64::from(SYMBOLS).log2() * knocks
}
