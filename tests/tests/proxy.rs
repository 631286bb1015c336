//! ssh through `knock-client proxy`, to a real sshd behind a door.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use knock_tests::{
    binary::binaries,
    daemon::Daemon,
    namespace::{run, text},
    net::{self, Family, Net},
    process::Process,
    ssh::{DOOR, SSH},
    wait,
};
use serde_json::json;
use tempfile::TempDir;

/// The root directory of sshd before a login; systemd creates it where it runs sshd.
const EMPTY: &str = "/run/sshd";

#[test]
fn ssh_knocks_and_logs_in() {
    net::test(|net| {
        let files = SshFiles::new();
        let sshd = sshd(net, &files);
        let daemon = Daemon::start(&net.server, DOOR);
        for family in Family::ALL {
            let source = net.native(family);
            source.finds_closed(SSH, &family.to_string());
            let profile = |knocks: &str| {
                let host = family.server();
                let text = format!(
                    "[profile.home]\nhost = \"{host}\"\nknock = [{knocks}]\ntimeout = \"3s\"\n"
                );
                files.write("config.toml", &text)
            };

            let wrong = profile(r#""tcp/7000", "udp/8000", "tcp/9001""#);
            let output = ssh(net, &files, &wrong, "echo in", b"");
            let printed = text(&output);
            assert_eq!(output.status.code(), Some(255), "{family}: {printed}");
            assert!(
                printed.contains("knock-client: cannot connect to tcp/22 on "),
                "{family}: {printed}"
            );

            let right = profile(r#""tcp/7000", "udp/8000", "tcp/9000""#);
            // More octets than all buffers hold, in both directions, and then both ends of file.
            let input = vec![b'x'; 3 << 20];
            let output = ssh(net, &files, &right, "cat; echo done >&2; exit 7", &input);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(7), "{family}: {stderr}");
            assert!(
                output.stdout == input,
                "{family}: {} bytes",
                output.stdout.len()
            );
            assert_eq!(stderr, "done\n", "{family}");
            let by = source.name();
            daemon.wait_for_event(&json!({"event": "opened", "source": by, "door": "ssh"}));
        }
        daemon.stop();
        drop(sshd);
    });
}

/// A directory with the files of sshd and of the client, and the empty directory that sshd needs.
struct SshFiles {
    directory: TempDir,
    made_empty: bool,
}

impl SshFiles {
    fn new() -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
            made_empty: fs::create_dir(EMPTY).is_ok(),
        };
        for key in ["host", "user"] {
            let path = files.path(key);
            let mut command = Command::new("ssh-keygen");
            run(command
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(path));
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

impl Drop for SshFiles {
    fn drop(&mut self) {
        if self.made_empty {
            let _another_sshd_uses_it = fs::remove_dir(EMPTY);
        }
    }
}

/// Returns an sshd that accepts only the key of this test.
fn sshd(net: &Net, files: &SshFiles) -> Process {
    let config = format!(
        "Port {SSH}
         ListenAddress 0.0.0.0
         ListenAddress ::
         HostKey {}
         AuthorizedKeysFile {}
         PidFile none
         StrictModes no
         PasswordAuthentication no
         KbdInteractiveAuthentication no
         PermitRootLogin prohibit-password
         UsePAM no
         UseDNS no
        ",
        files.text("host"),
        files.text("user.pub")
    );
    let config = files.write("sshd_config", &config);
    let mut command = Command::new("/usr/sbin/sshd");
    command.arg("-De").arg("-f").arg(config);
    let sshd = Process::start(&net.server, &mut command);
    wait::until("sshd listens", || {
        sshd.stderr().matches("listening on").count() == 2
    });
    sshd
}

/// Logs in at `home`, sends octets, and returns what is received.
fn ssh(net: &Net, files: &SshFiles, profiles: &Path, command: &str, input: &[u8]) -> Output {
    let proxy = format!(
        "{} proxy --config {} %h %p",
        binaries().client.display(),
        profiles.display()
    );
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-i", &files.text("user"), "-l", "root"]);
    for option in [
        &format!("ProxyCommand={proxy}"),
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
    ] {
        ssh.args(["-o", option]);
    }
    ssh.args(["home", command]);
    ssh.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    net.client.enter(|| {
        let mut child = ssh.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        thread::scope(|scope| {
            // The output must be read meanwhile; a command that fails reads no input.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        })
    })
}
