//! Passphrases of users.

use core::fmt;

use bytemuck::{Pod, Zeroable};

/// The longest passphrase in bytes: an AES key, as `fwknop --key-gen` makes it.
pub const PASSPHRASE_MAX: usize = 32;

/// The passphrase of a user: the AES key of `fwknop --key-gen`, or any other that its client has.
#[repr(C)]
#[derive(Clone, Copy, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Passphrase {
    /// Its bytes in memory order, and zeros behind them.
    pub(super) words: [u32; PASSPHRASE_MAX / 4],
    /// Its length in bytes; 0 if there is none.
    pub(super) length: u32,
}

impl Passphrase {
    /// Takes over a passphrase; `None` if it is empty or longer than [`PASSPHRASE_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; PASSPHRASE_MAX / 4];
        let place = bytemuck::bytes_of_mut(&mut words).get_mut(..bytes.len())?;
        place.copy_from_slice(bytes);
        let length = bytes.len() as u32;
        (length > 0).then_some(Self { words, length })
    }

    /// Returns whether there is one.
    #[inline(always)]
    pub const fn is_set(&self) -> bool {
        self.length != 0
    }
}

/// The passphrase is never printed.
impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}
