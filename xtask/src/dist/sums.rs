//! SHA-256 sums of everything that is published.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

pub(super) use crate::ebpf::sha256;

/// The file with the sums, as `sha256sum --check` reads it.
const NAME: &str = "SHA256SUMS";

/// Writes the sums of all files of a directory.
///
/// # Errors
/// A file can't be read or written.
pub(super) fn write(directory: &Path) -> Result<()> {
    let mut lines = Vec::new();
    let reading = || format!("reading {}", directory.display());
    for entry in fs::read_dir(directory).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && name != NAME {
            let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            lines.push((name.into_owned(), sha256(&content)));
        }
    }
    lines.sort();
    let text: String = lines
        .iter()
        .map(|(name, hash)| format!("{hash}  {name}\n"))
        .collect();
    let path = directory.join(NAME);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
