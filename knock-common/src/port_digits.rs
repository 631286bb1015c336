//! A port number as text.

use bytemuck::{Pod, Zeroable};

/// The most digits of a port number.
pub(crate) const DIGITS: usize = 5;

/// A port number as text. User space writes it, so that the kernel side need not divide.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct PortDigits {
    /// The digits, and zeros behind them.
    pub(crate) digits: [u8; DIGITS],
    /// The number of digits; 0 for no port.
    pub(crate) length: u8,
}

impl PortDigits {
    /// Returns the text of a port number.
    pub fn of(port: u16) -> Self {
        let mut text = Self::default();
        let mut rest = port;
        while rest > 0 {
            let [a, b, c, d, _] = text.digits;
            // Smaller than 58.
            let digit = b'0'.wrapping_add((rest % 10) as u8);
            text.digits = [digit, a, b, c, d];
            text.length = text.length.wrapping_add(1);
            rest /= 10;
        }
        text
    }

    /// Returns whether it names no port.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }
}
