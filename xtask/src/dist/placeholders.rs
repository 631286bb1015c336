//! The maintainer and the address of the project, which its publisher puts in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::files;

/// The domain that they are in until then; no name can be registered below `.invalid`.
const DOMAIN: &str = "knock.invalid";

/// Where they may be: the manifests of the packages, and the files of other formats.
const PLACES: [&str; 3] = ["knock-user/Cargo.toml", "knock-fleet/Cargo.toml", "dist"];

/// Prints which files still have placeholders.
///
/// # Errors
/// A file can't be read.
pub(super) fn report(root: &Path) -> Result<()> {
    let files = with_placeholders(root)?;
    if !files.is_empty() {
        let names: Vec<_> = files.iter().map(|path| path.to_string_lossy()).collect();
        println!(
            "dist: the maintainer or the address of the project is a placeholder below {DOMAIN} in {}: \
             docs/guides/install.md has the command that replaces it",
            names.join(", ")
        );
    }
    Ok(())
}

/// Returns the files with placeholders, below the root of the repository.
fn with_placeholders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for place in PLACES {
        let path = root.join(place);
        let all = if path.is_dir() {
            files(&path)?
        } else {
            vec![path]
        };
        for path in all {
            let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            if String::from_utf8_lossy(&content).contains(DOMAIN) {
                found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    /// The command of the page replaces all placeholders, because they have two forms.
    #[test]
    fn the_page_lists_all_files_and_forms() {
        let root = shell::workspace();
        let page = fs::read_to_string(root.join("docs/guides/install.md")).unwrap();
        for path in with_placeholders(root).unwrap() {
            let name = path.display().to_string();
            assert!(
                page.contains(&format!("`{name}`")),
                "{name} is not on the page"
            );
            let text = fs::read_to_string(root.join(&path)).unwrap();
            for line in text.lines().filter(|line| line.contains(DOMAIN)) {
                let forms = [format!("maintainers@{DOMAIN}"), format!("https://{DOMAIN}")];
                let known = forms.iter().map(|form| line.matches(form).count());
                assert_eq!(
                    known.sum::<usize>(),
                    line.matches(DOMAIN).count(),
                    "{name}: {line}"
                );
            }
        }
    }

    #[test]
    fn the_recipes_have_the_version() {
        let version = env!("CARGO_PKG_VERSION");
        for (path, line) in [
            (
                "dist/homebrew/knock-client.rb",
                format!("  url \"https://{DOMAIN}/knock-{version}.tar.gz\""),
            ),
            (
                "dist/termux/build.sh",
                format!("TERMUX_PKG_VERSION={version}"),
            ),
        ] {
            let text = fs::read_to_string(shell::workspace().join(path)).unwrap();
            assert!(text.lines().any(|found| found == line), "{path}: {line}");
        }
    }

    /// Some of them run only when a package is removed, or on a system that no test has.
    #[test]
    fn every_script_is_free_of_syntax_errors() {
        let is_script = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.starts_with("#!") || path.extension().is_some_and(|is| is == "sh")
        };
        let all = files(&shell::workspace().join("dist")).unwrap();
        let scripts: Vec<_> = all.into_iter().filter(is_script).collect();
        assert!(scripts.len() >= 7, "{scripts:?}");
        for path in scripts {
            let mut bash = std::process::Command::new("bash");
            let output = bash.arg("-n").arg(&path).output().unwrap();
            assert!(output.status.success(), "{}: {output:?}", path.display());
        }
    }
}
