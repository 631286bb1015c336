//! The programs under test.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::namespace::run;

/// Paths of the programs.
#[derive(Debug)]
pub struct Binaries {
    /// `knock-user`.
    pub user: PathBuf,
    /// `knock-client`.
    pub client: PathBuf,
}

/// Finds the programs, and builds them first where cargo runs this program, so that they are not older than the
/// tests.
///
/// `KNOCK_USER_BIN` and `KNOCK_CLIENT_BIN` name others.
///
/// # Panics
/// They are missing, or don't build.
#[track_caller]
pub fn binaries() -> &'static Binaries {
    static FOUND: OnceLock<Binaries> = OnceLock::new();
    FOUND.get_or_init(|| {
        let given = |name| env::var_os(name).map(PathBuf::from);
        if let (Some(user), Some(client)) = (given("KNOCK_USER_BIN"), given("KNOCK_CLIENT_BIN")) {
            return Binaries { user, client };
        }
        let directory = build_directory();
        if let Some(cargo) = env::var_os("CARGO") {
            build(Path::new(&cargo), &directory);
        }
        let find = |name: &str| {
            let path = directory.join(name);
            assert!(
                path.exists(),
                "{} is not there: build it with `cargo build --package {name}`",
                path.display()
            );
            path
        };
        Binaries {
            user: find("knock-user"),
            client: find("knock-client"),
        }
    })
}

/// Returns `target/debug` of `target/debug/deps/this-0123` or of `target/debug/this`.
fn build_directory() -> PathBuf {
    let this = match env::current_exe() {
        Ok(this) => this,
        Err(error) => panic!("finding this program: {error}"),
    };
    let mut directory = this.parent().map(Path::to_path_buf).unwrap_or_default();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory
}

fn build(cargo: &Path, directory: &Path) {
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    command.args(["--package", "knock-user", "--package", "knock-client"]);
    if let Some(target) = directory.parent() {
        command.arg("--target-dir").arg(target);
    }
    if directory.ends_with("release") {
        command.arg("--release");
    }
    run(&mut command);
}
