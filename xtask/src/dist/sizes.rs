//! The sizes of published programs, which have limits.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::Architecture;

/// The programs, and the sizes in bytes that none of them exceeds.
const LIMITS: [(&str, u64); 3] = [
    ("knock-user", 9_000_000),
    ("knock-client", 3_000_000),
    ("knock-fleet", 4_000_000),
];

/// Prints the sizes of the programs in a directory.
///
/// # Errors
/// A program exceeds its limit, or is not there.
pub(super) fn check(architecture: Architecture, directory: &Path) -> Result<()> {
    for (program, limit) in LIMITS {
        let path = directory.join(program);
        let reading = || format!("reading the size of {}", path.display());
        let bytes = fs::metadata(&path).with_context(reading)?.len();
        println!("{program} for {}: {bytes} bytes", architecture.debian());
        ensure!(
            bytes <= limit,
            "{program} for {} has {bytes} bytes, more than {limit}: find what it grew by, or raise the limit in {} \
             and the figures of docs/guides/install.md",
            architecture.debian(),
            file!()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_has_grown_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let write = |program: &str, bytes: u64| {
            let file = fs::File::create(directory.path().join(program)).unwrap();
            file.set_len(bytes).unwrap();
        };
        let check = || check(Architecture::Amd64, directory.path());
        for (program, limit) in LIMITS {
            write(program, limit);
        }
        check().unwrap();
        for (program, limit) in LIMITS {
            write(program, limit + 1);
            let error = check().unwrap_err().to_string();
            assert!(error.starts_with(program), "{error}");
            write(program, limit);
        }
        fs::remove_file(directory.path().join("knock-user")).unwrap();
        check().unwrap_err();
    }
}
