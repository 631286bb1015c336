//! Secrets of time-based sequences.

use bytemuck::{Pod, Zeroable};

use crate::hmac::HashInput;

/// The longest secret, in bytes.
pub const SECRET_MOST: usize = 31;

/// A secret that two sides share.
#[repr(C)]
#[derive(Clone, Copy, Eq, PartialEq, Pod, Zeroable)]
pub struct Secret {
    bytes: [u8; SECRET_MOST],
    length: u8,
}

impl Secret {
    /// Returns a secret of 1 to [`SECRET_MOST`] bytes.
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; SECRET_MOST];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        let length = u8::try_from(text.len()).ok().filter(|&length| length > 0)?;
        Some(Self { bytes, length })
    }

    /// Returns the length in bytes.
    pub fn length(&self) -> usize {
        self.length.into()
    }

    /// Reads a secret from a line, without the line's end.
    ///
    /// # Errors
    /// The reason why the line is not a secret.
    pub fn of_line(line: &[u8]) -> Result<Self, BadSecret> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.contains(&b'\n') || text.contains(&b'\r') {
            return Err(BadSecret::Lines);
        }
        if text.contains(&0) {
            return Err(BadSecret::Zero);
        }
        Self::new(text).ok_or(match text.len() {
            0 => BadSecret::Empty,
            length => BadSecret::Long(length),
        })
    }

    #[inline(always)]
    pub(crate) fn write(&self, text: &mut HashInput) {
        for (at, &byte) in (0..).zip(&self.bytes) {
            if at >= self.length {
                break;
            }
            text.push(byte);
        }
    }
}

/// Why a text is not a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadSecret {
    /// It is empty.
    Empty,
    /// It has more than [`SECRET_MOST`] bytes: this many.
    Long(usize),
    /// It has more than one line.
    Lines,
    /// It has a zero byte.
    Zero,
}

impl core::fmt::Display for BadSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => write!(f, "the secret is empty: write 1 to {SECRET_MOST} bytes"),
            Self::Long(length) => write!(
                f,
                "the secret has {length} bytes, and there may be {SECRET_MOST}: shorten it on both \
                 sides"
            ),
            Self::Lines => f.write_str("the secret has more than one line: write one"),
            Self::Zero => {
                f.write_str("the secret has a zero byte, which nobody can type: write text")
            }
        }
    }
}

impl core::error::Error for BadSecret {}

/// The secret is never printed.
impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(…)")
    }
}
