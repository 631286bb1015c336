//! Draws keys from the operating system's random number generator.

use anyhow::{Context as _, Result};
use rand::{TryRng as _, rngs::SysRng};

/// Draws a key of `N` words.
///
/// # Errors
/// The kernel gives no random numbers.
pub(crate) fn key<const N: usize>() -> Result<[u64; N]> {
    let mut key = [0; N];
    SysRng
        .try_fill_bytes(bytemuck::cast_slice_mut(&mut key))
        .context(
            "cannot draw a key: the kernel gives no random numbers; allow getrandom(2) where the \
             service or container filters system calls",
        )?;
    Ok(key)
}
