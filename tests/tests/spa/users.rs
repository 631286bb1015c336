//! Users with their keys, and the host that knows them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use knock_tests::{
    binary::binaries,
    namespace::{Namespace, run, text},
};
use tempfile::{TempDir, tempdir};

/// The doors that most tests use.
pub(crate) const DOORS: &str = r#"
    [[door]]
    name = "ssh"
    open = ["tcp/22"]

    [[door]]
    name = "wiki"
    open = ["tcp/80"]
    open_for = "20s"
    open_for_max = "10m"
"#;

/// Keys in a directory of their own.
pub(crate) struct Users {
    directory: TempDir,
    /// The host's public key.
    pub(crate) host: String,
}

impl Users {
    /// Makes the host's key.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let directory = tempdir().unwrap();
        let mut keygen = Command::new(&binaries().user);
        keygen
            .arg("keygen")
            .arg("--out")
            .arg(directory.path().join("host.key"));
        let host = run(&mut keygen).trim().to_owned();
        let host = host.lines().last().unwrap().to_owned();
        assert!(host.starts_with("knock1:"), "{host}");
        Self { directory, host }
    }

    /// Returns the file with a private key.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the line with a private key.
    #[track_caller]
    pub(crate) fn private(&self, name: &str) -> String {
        fs::read_to_string(self.file(name))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Makes a key; returns the line for `[[user]]`.
    #[track_caller]
    pub(crate) fn keygen(&self, name: &str) -> String {
        let mut keygen = Command::new(&binaries().client);
        keygen.arg("keygen").arg("--out").arg(self.file(name));
        let output = keygen.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Returns a configuration with `[spa]` and these lines, and a new key for each user, who may open these doors.
    #[track_caller]
    pub(crate) fn config(&self, spa: &str, users: &[(&str, &str)], rest: &str) -> String {
        let mut config = format!("[spa]\nkey = {:?}\n{spa}\n", self.file("host.key"));
        for (name, doors) in users {
            let keys = self.keygen(name);
            config += &format!("[[user]]\nname = \"{name}\"\n{keys}\n{doors}\n");
        }
        config + rest
    }

    /// Returns a user of fwknop, with keys in a file, who may open the door `ssh`.
    #[track_caller]
    pub(crate) fn fwknop(&self, name: &str) -> String {
        let file = self.file(name);
        fs::write(&file, "KEY a passphrase\nHMAC_KEY an HMAC key\n").unwrap();
        format!("[[user]]\nname = \"{name}\"\nfwknop = {file:?}\ndoors = [\"ssh\"]\n")
    }

    /// Runs knock-client in a namespace, with a user's key and these words.
    pub(crate) fn client(&self, namespace: &Namespace, name: &str, words: &[&str]) -> Output {
        let mut command = Command::new(&binaries().client);
        command.args(words).args(["--spa", &self.host]);
        command.arg("--key").arg(self.file(name));
        command.env("XDG_CONFIG_HOME", "/nonexistent");
        namespace.enter(|| command.output()).unwrap()
    }

    /// Runs knock-client, which must succeed; returns its standard output.
    #[track_caller]
    pub(crate) fn opens(&self, namespace: &Namespace, name: &str, words: &[&str]) -> String {
        let output = self.client(namespace, name, words);
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns a packet of the oracle, made with a user's key.
    #[track_caller]
    pub(crate) fn packet(&self, name: &str, source: &str, door: &str, stamp: u64) -> Vec<u8> {
        let (private, stamp) = (self.private(name), stamp.to_string());
        let digits = super::oracle::run(&["seal", &private, &self.host, source, door, "0", &stamp]);
        let digits = digits.trim();
        let pairs = (0..digits.len()).step_by(2);
        pairs
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect()
    }
}
