//! The kernel object inside of this program.

use anyhow::Result;

/// The kernel object, an ELF file without debug information, in the format of zlib (RFC 1950): in full it would be a
/// tenth of the program.
#[cfg(feature = "object")]
static COMPRESSED: &[u8] = include_bytes!(env!("KNOCK_OBJECT"));

/// Returns the kernel object as words, since an ELF file is read at an address that is a multiple of 8. Zeros may
/// follow it.
///
/// # Errors
/// The program was built without the object, as a library is, or the object is damaged.
#[cfg(feature = "object")]
pub fn object() -> Result<Vec<u64>> {
    use anyhow::anyhow;
    use miniz_oxide::inflate::decompress_to_vec_zlib;

    let octets = decompress_to_vec_zlib(COMPRESSED)
        .map_err(|error| anyhow!("the kernel object in this program is damaged: {error}"))?;
    let mut words = vec![0u64; octets.len().div_ceil(size_of::<u64>())];
    let (object, _) = bytemuck::cast_slice_mut(&mut words).split_at_mut(octets.len());
    object.copy_from_slice(&octets);
    Ok(words)
}

/// Returns an error, because a library build has no object.
#[cfg(not(feature = "object"))]
pub fn object() -> Result<Vec<u64>> {
    anyhow::bail!(
        "this program was built without the kernel object: build it with the feature `object`"
    )
}
