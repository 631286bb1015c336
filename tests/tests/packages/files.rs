//! The files of packages.

use std::{collections::BTreeSet, fs, path::Path};

use knock_tests::manual;

/// Those that every package has, besides documents, man pages and completions.
const COMMON: [&str; 7] = [
    "/etc/knock/seq.toml",
    "/usr/bin/knock-client",
    "/usr/bin/knock-user",
    "/usr/lib/systemd/system/knock-user.service",
    "/usr/lib/sysusers.d/knock.conf",
    "/usr/lib/tmpfiles.d/knock.conf",
    "/usr/share/knock/crowdsec/knock-bouncer",
];

/// The documents of the repository, as `cargo xtask dist` installs them.
const DOCUMENTS: [&str; 15] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "dist/crowdsec",
    "dist/fail2ban",
    "dist/grafana",
    "dist/kubernetes",
    "dist/prometheus",
    "dist/schema",
    "docs",
    "examples",
];

/// Returns the files that every package has.
pub(crate) fn expected() -> BTreeSet<String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let prefix = tempfile::tempdir().unwrap();
    manual::write(prefix.path()).unwrap();
    let common = COMMON.map(str::to_owned);
    let manual = below(prefix.path(), "").into_iter();
    let manual = manual.map(|path| format!("/usr{path}"));
    let documents = DOCUMENTS.iter().flat_map(|path| {
        let path = format!("/{path}");
        match repository.join(path.trim_start_matches('/')).is_dir() {
            true => below(&repository, &path),
            false => vec![path],
        }
    });
    let documents = documents.map(|path| format!("/usr/share/doc/knock{path}"));
    common.into_iter().chain(manual).chain(documents).collect()
}

/// Returns the files below a directory of `root`, as in `/share/man/man1/knock-client.1`.
pub(crate) fn below(root: &Path, directory: &str) -> Vec<String> {
    let (mut files, mut left) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = left.pop() {
        let entries = fs::read_dir(root.join(directory.trim_start_matches('/'))).unwrap();
        for entry in entries.flatten() {
            let path = format!("{directory}/{}", entry.file_name().display());
            if entry.file_type().unwrap().is_dir() {
                left.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// Asserts that two lists are equal, and shows the difference only.
#[track_caller]
pub(crate) fn assert_same(found: &BTreeSet<String>, expected: &BTreeSet<String>, row: &str) {
    let more: Vec<_> = found.difference(expected).collect();
    let less: Vec<_> = expected.difference(found).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "{row}: there and not expected: {more:?}; expected and not there: {less:?}"
    );
}
