//! The kept kernel object is what its sources make, in any directory.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use xtask::{
    ebpf::{self, PROGRAM, record},
    setup, shell,
};

/// Builds the object from a copy of the workspace elsewhere and compares it with the kept one. If that is out of date,
/// or of another compiler, it is compared with one that is built here.
#[test]
fn a_build_in_another_directory_makes_the_same_object() {
    let sh = shell::at_root().unwrap();
    let kit = setup::ready(&sh).unwrap();
    let kept = record::fresh().and_then(|kept| {
        let compiler = record::compiler()?;
        anyhow::ensure!(
            compiler == kit.to_string(),
            "it is of {compiler}, here is {kit}"
        );
        Ok(kept)
    });
    let expected = kept.unwrap_or_else(|why| {
        println!("compared with a build in this directory: {why:#}");
        ebpf::build(&sh, &kit, &PROGRAM, &ebpf::target_dir())
            .unwrap()
            .path
    });

    let place = tempfile::tempdir_in(shell::target_dir()).unwrap();
    let copy = place.path().join("a/copy of the workspace");
    copy_workspace(shell::workspace(), &copy);
    let elsewhere = shell::at_root().unwrap();
    elsewhere.change_dir(&copy);
    let built = ebpf::build(&elsewhere, &kit, &PROGRAM, &place.path().join("target")).unwrap();
    let (expected, found) = (fs::read(&expected).unwrap(), fs::read(&built.path).unwrap());
    let first = expected.iter().zip(&found).position(|(a, b)| a != b);
    assert_eq!(
        (expected.len(), None),
        (found.len(), first),
        "length, first octet that differs"
    );
}

/// Copies everything but hidden files and what was built.
fn copy_workspace(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let target = shell::target_dir();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path == target || name == Path::new("target") || name.to_string_lossy().starts_with('.')
        {
            continue;
        }
        if path.is_dir() {
            copy_workspace(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}
