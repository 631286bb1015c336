//! The archives, on a system that has nothing else.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

use knock_tests::namespace::{run, text};
use tempfile::TempDir;

use crate::{
    VERSION,
    files::{assert_same, below, expected},
    system::{bare, packages},
};

/// Unpacks an archive below `/usr/local` of an empty system, as docs/guides/install.md does.
pub(crate) fn unpacked(name: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let prefix = root.path().join("usr/local");
    fs::create_dir_all(&prefix).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components", "1", "--file"]);
    tar.arg(packages().join(format!("{name}-{VERSION}-x86_64-linux.tar.gz")));
    run(tar.arg("--directory").arg(&prefix));
    root
}

pub(crate) fn run_there(root: &Path, program: &str, words: &[&str]) -> Output {
    bare(root, &format!("/usr/local/bin/{program}"), words)
}

#[test]
fn both_programs_run_on_a_bare_root() {
    let root = unpacked("knock");
    for program in ["knock-user", "knock-client"] {
        let output = run_there(root.path(), program, &["--version"]);
        assert_eq!(text(&output), format!("{program} {VERSION}\n"));
    }
    let config = "/usr/local/share/doc/knock/dist/seq.toml";
    // It needs random numbers of the kernel, and nothing else of this system.
    let generated = run_there(root.path(), "knock-user", &["generate", "--knocks", "4"]);
    assert_eq!(generated.status.code(), Some(0), "{}", text(&generated));
    let found = below(root.path(), "/usr/local").into_iter().collect();
    let mut wanted: BTreeSet<String> = expected()
        .into_iter()
        .filter(|path| path != "/etc/knock/seq.toml")
        .map(|path| path.replacen("/usr/", "/usr/local/", 1))
        .collect();
    wanted.insert(config.to_owned());
    assert_same(&found, &wanted, "archive");
    let documents = root.path().join("usr/local/share/doc/knock");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in ["dist/seq.toml", "examples/seq.toml"] {
        let content = |directory: &Path| fs::read_to_string(directory.join(file)).unwrap();
        assert_eq!(content(&documents), content(&repository), "{file}");
    }
    let unit = root
        .path()
        .join("usr/local/lib/systemd/system/knock-user.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(
        unit.contains("ExecStart=/usr/local/bin/knock-user "),
        "{unit}"
    );
}

#[test]
fn the_client_alone_runs_on_a_bare_root() {
    let root = unpacked("knock-client");
    let output = run_there(root.path(), "knock-client", &["--version"]);
    assert_eq!(text(&output), format!("knock-client {VERSION}\n"));
    let found: BTreeSet<String> = below(root.path(), "/usr/local").into_iter().collect();
    let wanted = expected()
        .into_iter()
        .filter(|path| path.contains("knock-client") || path.contains("LICENSE"))
        .map(|path| path.replacen("/usr/", "/usr/local/", 1))
        .collect();
    assert_same(&found, &wanted, "archive of the client");
}

/// What the kernel reads of a program before it runs: nothing has to be loaded with it.
#[test]
fn the_programs_are_static() {
    let root = unpacked("knock");
    for program in ["knock-user", "knock-client"] {
        assert_static(&root.path().join("usr/local/bin").join(program));
    }
}

#[track_caller]
pub(crate) fn assert_static(program: &Path) {
    let mut ldd = Command::new("ldd");
    let output = ldd.arg(program).output().unwrap();
    let printed = text(&output);
    let is_static = printed.contains("statically linked") || printed.contains("not a dynamic");
    assert!(is_static, "{}: {printed}", program.display());
}
