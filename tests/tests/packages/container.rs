//! The container image, in a stock engine.

use std::{path::Path, process::Command};

use knock_tests::namespace::{run, text};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    VERSION,
    system::{bare, packages},
};

/// An engine with storage of its own.
struct Podman {
    place: TempDir,
}

impl Podman {
    fn command(&self, words: &[&str]) -> Command {
        let mut podman = Command::new("podman");
        // A driver that needs no file system of its own.
        podman.args(["--storage-driver", "vfs", "--root"]);
        podman.arg(self.place.path().join("root")).arg("--runroot");
        podman.arg(self.place.path().join("run")).args(words);
        podman
    }
}

#[test]
fn podman_loads_the_image_and_its_programs_run() {
    let podman = Podman {
        place: tempfile::tempdir_in(packages()).unwrap(),
    };
    let archive = packages().join(format!("knock-{VERSION}-oci.tar.gz"));
    run(podman.command(&["load", "--quiet", "--input"]).arg(archive));
    let name = format!("knock:{VERSION}");
    let image = run(&mut podman.command(&["image", "inspect", &name]));
    let image: Value = serde_json::from_str(&image).unwrap();
    let image = &image[0];
    assert_eq!(image["Os"], "linux");
    assert_eq!(image["Architecture"], "amd64");
    let config = &image["Config"];
    assert_eq!(
        config["Entrypoint"],
        serde_json::json!(["/usr/bin/knock-user"])
    );
    let words: Vec<_> = config["Cmd"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::as_str)
        .collect();
    let words: Vec<_> = words.into_iter().flatten().collect();
    assert_eq!(
        words,
        [
            "--config",
            "/etc/knock/seq.toml",
            "--wait-for-interfaces",
            "--on-exit",
            "keep"
        ]
    );
    let root = run(&mut podman.command(&["image", "mount", &name]));
    for program in ["knock-user", "knock-client"] {
        let path = format!("/usr/bin/{program}");
        let output = bare(Path::new(root.trim()), &path, &["--version"]);
        assert_eq!(text(&output), format!("{program} {VERSION}\n"));
    }
    run(&mut podman.command(&["image", "unmount", &name]));
}
