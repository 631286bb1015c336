//! Removes the source lines from the section `.BTF.ext` of a kernel object.
//!
//! They serve the verifier's log only, and are a fourth of the object. aya keeps them all for each function that it
//! links: 15 MB of memory while `knock-user` runs.

use anyhow::{Context as _, Result, ensure};

/// The first number of the section (`BTF_MAGIC`).
const MAGIC: u16 = 0xeb9f;

/// The fields of the header (`struct btf_ext_header`), by their index among its words of 32 bits.
const HEADER_LENGTH: usize = 1;
const FUNCTIONS: usize = 2;
const LINES: usize = 4;
const RELOCATIONS: usize = 6;

/// The header up to the part about lines; longer headers also have relocations.
const HEADER_LEAST: usize = 6 * size_of::<u32>();

/// Returns the section without source lines: functions and relocations stay.
///
/// # Errors
/// It has another form than the kernel's documentation of BTF describes.
pub(super) fn without_lines(section: &[u8]) -> Result<Vec<u8>> {
    let word = |index: usize| -> Result<u32> {
        let octets = section
            .chunks_exact(4)
            .nth(index)
            .context("it is too short")?;
        Ok(u32::from_le_bytes(octets.try_into()?))
    };
    ensure!(
        word(0)? as u16 == MAGIC,
        "it does not begin with {MAGIC:#x}"
    );
    let length = word(HEADER_LENGTH)? as usize;
    ensure!(length >= HEADER_LEAST, "its header has {length} octets");
    // An offset and a length, from the end of the header.
    let part = |field: usize| -> Result<&[u8]> {
        let begin = length + word(field)? as usize;
        let end = begin + word(field + 1)? as usize;
        section.get(begin..end).context("a part is beyond its end")
    };
    let functions = part(FUNCTIONS)?;
    let has_relocations = length >= (RELOCATIONS + 2) * size_of::<u32>();
    let relocations = if has_relocations {
        part(RELOCATIONS)?
    } else {
        &[]
    };

    let mut stripped = section.get(..length).context("it is too short")?.to_vec();
    let mut set = |field: usize, value: usize| -> Result<()> {
        let octets = stripped
            .chunks_exact_mut(4)
            .nth(field)
            .context("it is too short")?;
        octets.copy_from_slice(&u32::try_from(value)?.to_le_bytes());
        Ok(())
    };
    set(FUNCTIONS, 0)?;
    set(LINES, functions.len())?;
    set(LINES + 1, 0)?;
    if has_relocations {
        set(RELOCATIONS, functions.len())?;
    }
    stripped.extend(functions);
    stripped.extend(relocations);
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a section with these parts, in this order, behind a header of `length` octets.
    fn section(length: usize, functions: &[u8], lines: &[u8], relocations: &[u8]) -> Vec<u8> {
        let parts = [functions, lines, relocations];
        let mut words = vec![u32::from(MAGIC) | 1 << 16, length as u32];
        let mut offset = 0;
        for part in parts {
            words.extend([offset, part.len() as u32]);
            offset += part.len() as u32;
        }
        let mut section: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        section.truncate(length);
        section.resize(length, 0);
        section.extend(parts.concat());
        section
    }

    #[test]
    fn functions_and_relocations_stay() {
        for (name, length, functions, relocations) in [
            ("all parts", 32, &b"functions"[..], &b"relocations"[..]),
            ("no relocations", 32, b"functions", b""),
            ("an old header", 24, b"functions", b""),
            ("a longer header", 40, b"functions", b"relocations"),
            ("nothing", 32, b"", b""),
        ] {
            let whole = section(length, functions, b"many lines", relocations);
            let stripped = without_lines(&whole).unwrap_or_else(|why| panic!("{name}: {why:#}"));
            assert_eq!(
                stripped,
                section(length, functions, b"", relocations),
                "{name}"
            );
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let whole = section(32, b"functions", b"many lines", b"relocations");
        let other_magic = [&[0][..], &whole[1..]].concat();
        for (name, section, expected) in [
            ("empty", &[][..], "too short"),
            ("cut in the header", &whole[..20], "beyond its end"),
            ("cut in a part", &whole[..60], "beyond its end"),
            ("another magic number", &other_magic, "does not begin with"),
            ("a short header", &section(8, b"", b"", b""), "has 8 octets"),
        ] {
            let error = without_lines(section).unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
    }
}
