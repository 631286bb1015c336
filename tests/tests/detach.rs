//! `detach` while a process starts or ends, and of everything on the host.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{
    fs::{self, File},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    thread,
};

use knock_tests::{
    daemon::{Daemon, ask, command, config_file},
    namespace::Namespace,
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::{self, attached_programs, nothing_is_left},
    process::Process,
    server::Server,
    ssh::{DOOR, SSH},
    wait,
};
use knock_user::{
    host::paths::{MOUNT_POINT, RUN},
    kernel::instance::Instance,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const OPEN: &str = "tcp/22 is no longer protected on b0\n";

#[test]
fn a_process_that_is_starting_is_asked_when_it_listens() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let instance = kept(net);
        let held = HeldInstance::beside(&instance);
        let config = config_file(DOOR.as_bytes());
        let mut start = command(&config);
        let start = Process::start(&net.server, start.args(["--iface", SERVER_LINK]));
        wait::until("the start has its lock", || {
            instance.owner() == Some(start.id())
        });
        let (code, printed) = ask(&net.server, &["detach", "--iface", SERVER_LINK]);
        assert_eq!((code, printed.as_str()), (Some(0), OPEN));
        net.new_source(Family::V4).finds(true, SSH, "detached");
        let ended = start.wait();
        assert!(ended.status.success(), "{ended:?}");
        drop(held);
        nothing_is_left(&net.server, &[]);
    });
}

#[test]
fn what_a_process_leaves_that_ends_without_an_answer_is_removed() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let instance = kept(net);
        fs::remove_file(instance.socket()).unwrap();
        let listener = UnixListener::bind(instance.socket()).unwrap();
        let ending = thread::spawn(move || {
            let connection = listener.accept();
            // Nobody listens any more when the client notices.
            drop(listener);
            drop(connection);
        });
        let (code, printed) = ask(&net.server, &["detach"]);
        assert_eq!((code, printed.as_str()), (Some(0), OPEN));
        ending.join().unwrap();
        net.new_source(Family::V4).finds(true, SSH, "detached");
        nothing_is_left(&net.server, &[]);
    });
}

#[test]
fn all_instances_of_the_host_can_be_detached() {
    const HERE: &str = "tcp/22 is no longer protected on b0\ntcp/22 is no longer protected on b1\n";
    const ELSEWHERE: &str = "tcp/22 is no longer protected on v0 in another network namespace\n";
    const OBJECT: [&str; 3] = [
        "{\"interfaces\":[\"b0\"],\"ports\":[\"tcp/22\"]}\n",
        "{\"interfaces\":[\"b1\"],\"ports\":[\"tcp/22\"]}\n",
        "{\"interfaces\":[\"v0\"],\"ports\":[\"tcp/22\"]}\n",
    ];
    // The instances that are really on this host stay.
    with_own_mounts(|| {
        for (row, words, expected, nothing) in [
            (
                "as text",
                &["detach", "--all"][..],
                format!("{HERE}{ELSEWHERE}{ELSEWHERE}"),
                "nothing is attached\n",
            ),
            (
                "as JSON",
                &["detach", "--all", "--json"],
                format!("{}{}", OBJECT.concat(), OBJECT[2]),
                "{\"interfaces\":[],\"ports\":[]}\n",
            ),
        ] {
            net::test(|net| {
                net.add_second_link();
                kept(net);
                let runs = Daemon::start_with(&net.server, DOOR, &["--iface", SERVER_LINK_2]);
                let others = [other(), other()];
                Daemon::start_with(&others[0], DOOR, &["--iface", OTHER_LINK]).kill();
                let runs_elsewhere = Daemon::start_with(&others[1], DOOR, &["--iface", OTHER_LINK]);
                let (code, printed) = ask(&net.server, words);
                assert_eq!((code, printed), (Some(0), expected), "{row}");
                for namespace in [&net.server, &others[0], &others[1]] {
                    assert_eq!(attached_programs(namespace), [] as [u32; 0], "{row}");
                }
                for daemon in [runs, runs_elsewhere] {
                    assert!(daemon.wait().status.success(), "{row}");
                }
                let (code, printed) = ask(&net.server, words);
                assert_eq!((code, printed.as_str()), (Some(0), nothing), "{row}");
            });
        }
    });
}

#[test]
fn what_can_not_be_detached_is_named_and_does_not_keep_the_rest() {
    with_own_mounts(|| {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let instance = kept(net);
            let held = HeldInstance::beside(&instance);
            let (code, printed) = ask(&net.server, &["detach", "--all"]);
            assert_eq!(code, Some(1), "{printed}");
            assert!(printed.contains(OPEN), "{printed}");
            let name = held.instance_name();
            let error = format!("knock-user: {name}: another knock-user, process ");
            assert!(printed.contains(&error), "no {error:?} in: {printed}");
            net.new_source(Family::V4).finds(true, SSH, "the other");
        });
    });
}

/// Protects the server's first interface without a process.
fn kept(net: &Net) -> Instance {
    Daemon::start(&net.server, DOOR).kill();
    pins::instance(&net.server)
}

const OTHER_LINK: &str = "v0";

/// Makes a network namespace with an interface that can be protected.
fn other() -> Namespace {
    let namespace = Namespace::new("other");
    namespace.ip(&format!("link add {OTHER_LINK} type veth peer name v1"));
    namespace.ip(&format!("link set {OTHER_LINK} up"));
    namespace
}

/// An instance without links, whose lock this process has. A start of another instance tries to remove it, and waits
/// for its lock for two seconds: behind its own lock, and before it listens.
struct HeldInstance {
    pins: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl HeldInstance {
    /// Makes one of the same network namespace.
    fn beside(instance: &Instance) -> Self {
        let name = instance.name().replace(SERVER_LINK, "held");
        let pins = instance.pins().with_file_name(&name);
        fs::create_dir(&pins).unwrap();
        let lock = Path::new(RUN).join(format!("{name}.lock"));
        let file = File::create(&lock).unwrap();
        // A shared lock does not look like that of a process that serves it.
        file.lock_shared().unwrap();
        Self {
            pins,
            lock,
            _held: file,
        }
    }

    fn instance_name(&self) -> String {
        let name = self.pins.file_name().unwrap();
        name.to_string_lossy().into_owned()
    }
}

impl Drop for HeldInstance {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.pins);
        let _removed = fs::remove_file(&self.lock);
    }
}

/// Runs a test in a thread with a bpffs of its own, and another directory for files of instances.
fn with_own_mounts(test: impl FnOnce() + Send) {
    let apart = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        let mounted = |source: &str, target: &str, kind: &str| {
            mount(
                Some(source),
                target,
                Some(kind),
                MsFlags::empty(),
                Some("mode=700"),
            )
        };
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        fs::create_dir_all(RUN).unwrap();
        mounted("knock", RUN, "tmpfs").unwrap();
        mounted("bpf", MOUNT_POINT, "bpf").unwrap();
        test();
    };
    thread::scope(|scope| scope.spawn(apart).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
