//! The kernel object inside of this program.

/// The kernel object, an ELF file without debug information.
#[cfg(feature = "object")]
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("KNOCK_OBJECT"));

/// A library build has no object, and `XdpProgram::load` returns an error.
#[cfg(not(feature = "object"))]
pub static OBJECT: &[u8] = &[];
