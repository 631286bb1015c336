//! Base64 (RFC 4648) without padding, a character at a time.

/// Characters that encode three bytes.
pub const GROUP: usize = 4;
/// The character of the value 0.
pub const ZERO: u8 = b'A';
/// Bits of a character.
pub const BITS: u32 = 6;

/// The result of [`digit`] for any other character: greater than each digit.
pub const NO_DIGIT: u32 = 0xff;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it")]
static DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT as u8; 256];
    let mut digit = 0;
    while digit < ALPHABET.len() as u8 {
        digits[ALPHABET[digit as usize] as usize] = digit;
        digit += 1;
    }
    digits
};

/// Returns the value of a character, 0 to 63, or [`NO_DIGIT`].
#[inline(always)]
pub fn digit(character: u8) -> u32 {
    DIGITS
        .get(usize::from(character))
        .map_or(NO_DIGIT, |&digit| digit.into())
}

/// Returns the character of a value; the upper bits of the value are ignored.
pub fn character(digit: u32) -> u8 {
    ALPHABET.get(digit as usize & 63).copied().unwrap_or(ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_has_the_value_that_encodes_as_it() {
        for byte in 0..=255_u8 {
            let digit = digit(byte);
            let is_digit = byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            assert_eq!(digit < 64, is_digit, "{byte}");
            assert_eq!(digit == NO_DIGIT, !is_digit, "{byte}");
            assert!(!is_digit || character(digit) == byte, "{byte}");
        }
    }
}
