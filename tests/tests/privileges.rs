//! The rights of knock-user and its commands, and starts without root.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use knock_tests::{
    binary::binaries,
    daemon,
    namespace::run,
    net::{self, Family, Net, SERVER_LINK},
    process::Process,
    server::Server,
    source::echoes,
    ssh::{DOOR, KNOCKS, SSH},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF` as a set (`linux/capability.h`).
const THREE: u64 = 1 << 12 | 1 << 38 | 1 << 39;
const NOBODY: &str = "65534";
/// The commands of docs/operating.md for a start by an ordinary user, without those that affect the host.
const PREPARED: &str = "install -d -m 700 -o 65534 /sys/fs/bpf/knock; chmod o+x /sys/fs/bpf; \
                        install -d -m 700 -o 65534 /run/knock";

#[test]
fn an_ordinary_user_with_three_capabilities_protects() {
    net::test(|net| {
        let place = SharedDirectory::new(|_| DOOR.to_owned());
        let _server = Server::tcp(&net.server, &[SSH]);
        let process = place.start(net, Who::Nobody);
        for family in Family::ALL {
            let row = &family.to_string();
            let source = net.new_source(family);
            source.finds_closed(SSH, row);
            let mut stream = source.knock_and_connect(KNOCKS, SSH).unwrap();
            assert!(echoes(&mut stream), "{row}");
            net.new_source(family).finds_closed(SSH, row);
            let opened = json!({"event": "opened", "source": source.name()});
            wait::until("it is reported", || has(&process, &opened));
        }
        let ended = process.stop(Signal::SIGTERM);
        assert!(ended.status.success(), "{ended:?}");
        net.new_source(Family::V4).finds(true, SSH, "detached");
    });
}

/// With a file of its own in a directory of its own, as the service has it; what is used is marked.
#[test]
fn an_ordinary_user_marks_its_own_file() {
    net::test(|net| {
        let place = SharedDirectory::new(|_| {
            let door = "[[door]]\nname = \"ssh\"\none_time = \"state/once\"\nopen = [\"tcp/22\"]\n";
            door.to_owned()
        });
        let (state, once) = (place.path("state"), place.path("state/once"));
        fs::create_dir(&state).unwrap();
        fs::write(&once, " 7000,8000:udp,6000\n 7100,8100:udp,6100\n").unwrap();
        let nobody = NOBODY.parse().ok();
        for path in [&state, &once] {
            chown(path, nobody, None).unwrap();
        }
        fs::set_permissions(&once, fs::Permissions::from_mode(0o600)).unwrap();
        let _server = Server::tcp(&net.server, &[SSH]);
        let process = place.start(net, Who::Nobody);
        let source = net.new_source(Family::V4);
        source.knock("tcp/7000 udp/8000 tcp/6000");
        source.finds(true, SSH, "the first line");
        wait::until("it is marked", || {
            let text = fs::read_to_string(&once).unwrap();
            text == "#7000,8000:udp,6000\n 7100,8100:udp,6100\n"
        });
        let file = fs::metadata(&once).unwrap();
        assert_eq!((Some(file.uid()), file.mode() & 0o777), (nobody, 0o600));
        let used = json!({"event": "used", "door": "ssh", "line": 1, "sequences_left": 1});
        wait::until("it is reported", || has(&process, &used));
        let ended = process.stop(Signal::SIGTERM);
        assert!(ended.status.success(), "{ended:?}");
    });
}

#[test]
fn a_user_that_cannot_pin_gets_the_cure() {
    let rows: [(&str, Who, &str, &[&str]); 3] = [
        (
            "nothing is prepared",
            Who::Nobody,
            ":",
            &[
                "sudo install -d",
                "/sys/fs/bpf/knock",
                "chmod o+x /sys/fs/bpf",
            ],
        ),
        (
            "nothing is prepared for the process's files",
            Who::Nobody,
            "install -d -m 700 -o 65534 /sys/fs/bpf/knock; chmod o+x /sys/fs/bpf",
            &["sudo install -d", "/run/knock"],
        ),
        (
            "root after somebody else",
            Who::Root,
            PREPARED,
            &[
                "belongs to",
                "sudo chown -Rh root /sys/fs/bpf/knock /run/knock",
            ],
        ),
    ];
    net::test(|net| {
        let place = SharedDirectory::new(|_| DOOR.to_owned());
        for (row, who, preparing, words) in rows {
            let mut command = place.command(who, preparing);
            let ended = Process::start(&net.server, &mut command).wait();
            assert_eq!(ended.status.code(), Some(1), "{row}: {ended:?}");
            for word in words {
                assert!(
                    ended.stderr.contains(word),
                    "{row}: no {word:?} in {ended:?}"
                );
            }
            let attached = knock_tests::pins::attached_programs(&net.server);
            assert_eq!(attached, [] as [u32; 0], "{row}");
        }
    });
}

#[test]
fn the_daemon_and_its_commands_have_only_the_capabilities_they_need() {
    for (who, of_commands) in [(Who::Root, THREE), (Who::Nobody, 0)] {
        net::test(|net| {
            let place = SharedDirectory::new(|directory| {
                let at = directory.display();
                format!(
                    "{DOOR}\non_open = [\"/bin/sh\", \"-c\", \
                     \"{at}/cat /proc/self/status >{at}/new && mv {at}/new {at}/status\"]\n"
                )
            });
            // This program makes its user root, unless the process has given that up.
            fs::copy("/bin/cat", place.path("cat")).unwrap();
            fs::set_permissions(place.path("cat"), fs::Permissions::from_mode(0o4755)).unwrap();
            becomes_root(&place.path("cat"));

            let process = place.start(net, who);
            let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
            let mut count = 0;
            for task in tasks.flatten() {
                let text = fs::read_to_string(task.path().join("status")).unwrap();
                let status = status(&text);
                assert_eq!(set(&status, "CapEff"), THREE, "{who:?}: {text}");
                assert_eq!(set(&status, "CapPrm"), THREE, "{who:?}: {text}");
                assert_eq!(set(&status, "CapInh"), 0, "{who:?}: {text}");
                assert_eq!(set(&status, "CapAmb"), 0, "{who:?}: {text}");
                assert_eq!(status["NoNewPrivs"], "1", "{who:?}: {text}");
                if who == Who::Root {
                    assert_eq!(set(&status, "CapBnd"), THREE, "{who:?}: {text}");
                }
                count += 1;
            }
            assert!(count > 1, "the thread that writes is among them");

            net.new_source(Family::V4).knock(KNOCKS);
            let written = place.path("status");
            wait::until("the command has run", || written.exists());
            let text = fs::read_to_string(written).unwrap();
            let status = status(&text);
            assert_eq!(set(&status, "CapEff"), of_commands, "{who:?}: {text}");
            assert_eq!(set(&status, "CapPrm"), of_commands, "{who:?}: {text}");
            assert_eq!(status["NoNewPrivs"], "1", "{who:?}: {text}");
            if who == Who::Nobody {
                let everywhere = [NOBODY; 4].join("\t");
                assert_eq!(status["Uid"], everywhere, "set-user-id: {text}");
            }
            let ended = process.stop(Signal::SIGINT);
            assert!(ended.status.success(), "{who:?}: {ended:?}");
        });
    }
}

/// The user who runs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Root,
    /// With exactly the three capabilities.
    Nobody,
}

/// Program and configuration, readable by every user, and a directory that every user may write.
struct SharedDirectory(TempDir);

impl SharedDirectory {
    fn new(config: impl Fn(&Path) -> String) -> Self {
        let directory = TempDir::new().unwrap();
        let all = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(directory.path(), all(0o777)).unwrap();
        let place = Self(directory);
        fs::copy(&binaries().user, place.path("knock-user")).unwrap();
        fs::set_permissions(place.path("knock-user"), all(0o755)).unwrap();
        fs::write(place.path("seq.toml"), config(place.0.path())).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the command that runs it with a bpffs and a `/run` of its own, after `preparing`.
    fn command(&self, who: Who, preparing: &str) -> Command {
        const CAPABILITIES: &str = "-all,+bpf,+net_admin,+perfmon";
        let becoming = match who {
            Who::Root => String::new(),
            Who::Nobody => format!(
                "setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \
                 --inh-caps={CAPABILITIES} --ambient-caps={CAPABILITIES}"
            ),
        };
        let script = format!(
            "mount -t bpf bpf /sys/fs/bpf -o mode=700; mount -t tmpfs tmpfs /run -o mode=755; \
             {preparing}; exec {becoming} \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]);
        command.arg("sh").arg(self.path("knock-user"));
        command.args(["--json", "--iface", SERVER_LINK, "--config"]);
        command.arg(self.path("seq.toml"));
        command
    }

    /// Runs it until it protects.
    fn start(&self, net: &Net, who: Who) -> Process {
        let preparing = match who {
            Who::Root => ":",
            Who::Nobody => PREPARED,
        };
        let mut process = Process::start(&net.server, &mut self.command(who, preparing));
        wait::until("it protects or ends", || {
            has(&process, &json!({"event": "protecting"})) || !process.is_running()
        });
        assert!(process.is_running(), "{who:?}: {}", process.printed());
        process
    }
}

fn has(process: &Process, pattern: &serde_json::Value) -> bool {
    let events = daemon::events(&process.stdout());
    events.iter().any(|event| daemon::has(event, pattern))
}

/// Returns the lines of a `/proc/PID/status`.
fn status(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(":\t"))
        .collect()
}

fn set(status: &HashMap<&str, &str>, name: &str) -> u64 {
    u64::from_str_radix(status[name], 16).unwrap()
}

/// Asserts that the program makes its user root, without which the test above would prove nothing.
fn becomes_root(program: &Path) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--clear-groups"]);
    let text = run(command.arg(program).arg("/proc/self/status"));
    let uid = status(&text)["Uid"].to_owned();
    assert_eq!(
        uid,
        format!("{NOBODY}\t0\t0\t0"),
        "{} is on a file system without set-user-id: set TMPDIR",
        program.display()
    );
}
