//! Leftovers of network namespaces, which no other namespace may take over.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::path::PathBuf;

use knock_tests::{
    daemon::{Daemon, ask},
    namespace::Namespace,
    pins::{self, attached_programs},
    ssh::DOOR,
    wait,
};
use knock_user::{host::netns, kernel::instance::Instance};

const LINK: &str = "v0";

const START: [&str; 2] = ["--iface", LINK];

#[test]
fn leftovers_of_a_deleted_namespace_are_removed() {
    for (name, arguments, code) in [
        ("status", &["status"][..], Some(1)),
        ("detach", &["detach"], Some(0)),
        (
            "detach of an interface",
            &["detach", "--iface", "b0"],
            Some(0),
        ),
    ] {
        let gone = namespace("gone");
        let (instance, programs) = protect(&gone);
        let other = namespace("other");
        // As long as the namespace exists, nothing is removed.
        let (found, output) = ask(&other, arguments);
        assert_eq!(found, code, "{name}: {output}");
        assert_eq!(files(&instance).len(), 3, "{name}: {:?}", files(&instance));
        gone.abandon();
        loses_its_interface(&instance);
        let (found, output) = ask(&other, arguments);
        assert_eq!(found, code, "{name}: {output}");
        assert!(output.contains(instance.name()), "{name}: {output}");
        assert_eq!(files(&instance), [] as [PathBuf; 0], "{name}");
        pins::are_unloaded(&programs);
    }
}

#[test]
fn a_start_removes_leftovers_of_a_deleted_namespace() {
    let gone = namespace("gone");
    let (instance, programs) = protect(&gone);
    gone.abandon();
    loses_its_interface(&instance);
    let other = namespace("other");
    let daemon = Daemon::start_with(&other, DOOR, &START);
    assert_eq!(files(&instance), [] as [PathBuf; 0]);
    pins::are_unloaded(&programs);
    daemon.stop();
}

#[test]
fn live_instances_are_not_removed() {
    type Make = fn(&Namespace) -> Option<Daemon>;
    let killed: Make = |namespace| {
        protect(namespace);
        None
    };
    let without_interface: Make = |namespace| {
        protect(namespace);
        namespace.ip(&format!("link delete {LINK}"));
        None
    };
    let runs: Make = |namespace| Some(Daemon::start_with(namespace, DOOR, &START));
    let runs_without_interface: Make = |namespace| {
        let daemon = Daemon::start_with(namespace, DOOR, &START);
        namespace.ip(&format!("link delete {LINK}"));
        daemon.wait_for_event(&serde_json::json!({"event": "absent", "interface": LINK}));
        Some(daemon)
    };
    let registered_elsewhere: Make = |namespace| {
        let (instance, _) = protect(namespace);
        namespace.ip(&format!("link delete {LINK}"));
        loses_its_interface(&instance);
        std::fs::remove_file(instance.registry()).unwrap();
        None
    };
    for (name, make) in [
        ("the registry is in another /run", registered_elsewhere),
        ("a process that was killed", killed),
        ("no process and no interface", without_interface),
        ("a process that runs", runs),
        (
            "a process that waits for its interface",
            runs_without_interface,
        ),
    ] {
        let lives = namespace("lives");
        let daemon = make(&lives);
        let instance = pins::instance(&lives);
        let before = files(&instance);
        assert!(before.contains(&instance.pins()), "{name}: {before:?}");
        let other = namespace("other");
        for arguments in [["status"], ["detach"]] {
            ask(&other, &arguments);
        }
        Daemon::start_with(&other, DOOR, &START).stop();
        assert_eq!(files(&instance), before, "{name}");
        drop(daemon);
    }
}

/// The kernel reuses inode numbers, mostly at once.
#[test]
fn grants_stay_in_their_namespace() {
    const TRIES: usize = 50;
    let gone = namespace("gone");
    let number = gone.enter(netns::inode).unwrap();
    let (instance, _) = protect(&gone);
    gone.abandon();
    loses_its_interface(&instance);
    let mut others = Vec::new();
    while others.len() < TRIES {
        others.push(namespace("other"));
        if others.last().unwrap().enter(netns::inode).unwrap() == number {
            break;
        }
    }
    let other = others.pop().unwrap();
    drop(others);
    let daemon = Daemon::start_with(&other, DOOR, &START);
    assert_ne!(pins::instance(&other).name(), instance.name());
    let cookie = other.enter(netns::cookie).unwrap();
    assert_eq!(pins::instance(&other).name(), format!("{LINK}@ns{cookie}"));
    let kept = daemon.events_like(&serde_json::json!({"event": "kept"}));
    assert!(kept.is_empty(), "{kept:?}");
    let (code, output) = ask(&other, &["list"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(!output.contains("192.0.2.2"), "{output}");
    daemon.stop();
    // The namespace that gets its number does not keep the leftovers of the first one.
    drop(other);
    let last = namespace("last");
    ask(&last, &["detach"]);
    assert_eq!(files(&instance), [] as [PathBuf; 0]);
}

#[test]
fn an_interface_that_was_moved_here_is_found() {
    let first = namespace("first");
    let (instance, programs) = protect(&first);
    let second = Namespace::new("second");
    // A pair ends with either of its ends.
    for link in [LINK, "v1"] {
        first.ip(&format!("link set {link} netns {}", second.name()));
    }
    assert_eq!(attached_programs(&second), programs);
    first.abandon();
    let (code, output) = ask(&second, &["status"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains(instance.name()), "{output}");
    let daemon = Daemon::start_with(&second, DOOR, &START);
    let (_, output) = ask(&second, &["list"]);
    assert!(output.contains("192.0.2.2"), "{output}");
    daemon.kill();
    let (code, output) = ask(&second, &["detach"]);
    assert_eq!(code, Some(0), "{output}");
    pins::nothing_is_left(&second, &programs);
    assert_eq!(files(&instance), [] as [PathBuf; 0]);
}

/// Returns a namespace with an interface that can be protected.
fn namespace(role: &str) -> Namespace {
    let namespace = Namespace::new(role);
    namespace.ip(&format!("link add {LINK} type veth peer name v1"));
    namespace.ip(&format!("link set {LINK} up"));
    namespace
}

/// Protects the namespace, lets a source in, and kills the process.
fn protect(namespace: &Namespace) -> (Instance, Vec<u32>) {
    let daemon = Daemon::start_with(namespace, DOOR, &START);
    let (code, output) = ask(
        namespace,
        &["grant", "192.0.2.2", "--door", "ssh", "--for", "1h"],
    );
    assert_eq!(code, Some(0), "{output}");
    let programs = daemon.programs().to_vec();
    daemon.kill();
    (pins::instance(namespace), programs)
}

/// Returns the files of an instance on bpffs and in /run.
fn files(instance: &Instance) -> Vec<PathBuf> {
    let files = [instance.pins(), instance.registry(), instance.socket()];
    files.into_iter().filter(|path| path.exists()).collect()
}

/// Waits for the end of a namespace, which the kernel ends a moment after the last one has left it.
fn loses_its_interface(instance: &Instance) {
    wait::until("the interface is gone", || {
        let links = knock_user::kernel::pins::links(instance).unwrap();
        links.iter().all(|link| link.index == 0)
    });
}
