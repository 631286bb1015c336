//! Interfaces that come, go and change: which messages report them, and how protection follows.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use knock_tests::{
    daemon::Daemon,
    namespace::{self, Namespace},
    net::{self, Family, Net, SERVER_LINK, SERVER_LINK_2},
    pins::attached_programs,
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
    wait::{self, PATIENCE},
};
use knock_user::host::link_events::{
    LinkChange,
    LinkChangeKind::{self, Appeared, Changed, Gone},
    LinkWatch,
};
use serde_json::json;
use tokio::time::timeout;

const BOTH: [&str; 4] = ["--iface", SERVER_LINK, "--iface", SERVER_LINK_2];

#[test]
fn each_change_of_a_link_is_noticed() {
    test(async |namespace| {
        let mut watched = LinkChanges::open();
        namespace.ip("link add v0 type veth peer name v1");
        let index = watched.receive("v0", Appeared { up: false }).await;
        namespace.ip("link set v0 up");
        assert_eq!(watched.receive("v0", Changed { up: true }).await, index);
        namespace.ip("link set v0 down");
        assert_eq!(watched.receive("v0", Changed { up: false }).await, index);
        namespace.ip("link set v0 name wan");
        assert_eq!(watched.receive("v0", Gone).await, index);
        assert_eq!(watched.receive("wan", Appeared { up: false }).await, index);
        namespace.ip("link delete wan");
        assert_eq!(watched.receive("wan", Gone).await, index);

        namespace.ip("link add wan up type veth peer name v1");
        let again = watched.receive("wan", Appeared { up: true }).await;
        assert_ne!(again, index, "made again");
    });
}

#[test]
fn a_link_that_moves_away_and_returns_is_noticed() {
    test(async |namespace| {
        namespace.ip("link add v0 type veth peer name v1");
        let mut watched = LinkChanges::open();
        let other = Namespace::new("away");
        namespace.ip(&format!("link set v0 netns {}", other.name()));
        watched.receive("v0", Gone).await;
        other.ip(&format!("link set v0 netns {}", namespace.name()));
        watched.receive("v0", Appeared { up: false }).await;
    });
}

#[test]
fn a_link_in_a_bridge_is_not_gone_when_it_leaves() {
    test(async |namespace| {
        namespace.ip_batch(
            "link add br0 type bridge
             link add v0 type veth peer name v1",
        );
        let mut watched = LinkChanges::open();
        namespace.ip_batch(
            "link set v0 master br0
             link set v0 nomaster
             link set v0 up",
        );
        watched.receive("v0", Changed { up: true }).await;
    });
}

/// More messages arrive than the socket has room for, and none of the changes is missed.
#[test]
fn lost_link_messages_are_made_up_for() {
    test(async |namespace| {
        namespace.ip_batch(
            "link add v0 type veth peer name v1
             link add w0 type veth peer name w1",
        );
        let mut watched = LinkChanges::open();
        let mut lines = String::from("link delete w0\n");
        for _ in 0..1_000 {
            lines += "link set v0 up\nlink set v0 down\n";
        }
        lines += "link set v0 up\nlink add x0 type veth peer name x1\n";
        namespace.ip_batch(&lines);

        let last = watched.receive_all_up_to("x0").await;
        assert!(
            last.len() < 1_000,
            "{} changes: nothing was lost",
            last.len()
        );
        let of = |name: &str| {
            last.iter()
                .rfind(|change| change.name == name)
                .unwrap()
                .kind
        };
        assert_eq!(of("v0"), Appeared { up: true }, "it is to be looked at");
        assert_eq!(of("w0"), Gone);
        assert_eq!(of("x0"), Appeared { up: false });
        // Later changes are noticed, too.
        namespace.ip("link delete x0");
        watched.receive("x0", Gone).await;
    });
}

/// A cancelled wait loses no change.
#[test]
fn waiting_for_links_can_be_cancelled() {
    test(async |namespace| {
        let mut watched = LinkChanges::open();
        for number in 0..20 {
            tokio::select! {
                biased;
                changes = watched.watch.changed() => watched.changes.extend(changes.unwrap()),
                () = std::future::ready(()) => {}
            }
            namespace.ip(&format!("link add v{number} type veth peer name p{number}"));
        }
        for number in 0..20 {
            watched
                .receive(&format!("v{number}"), Appeared { up: false })
                .await;
        }
    });
}

#[test]
fn a_link_made_again_is_protected_and_others_are_not_disturbed() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        net.add_second_link();
        let daemon = Daemon::start_with(&net.server, DOOR, &BOTH);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        is_protected(net, "at first");
        for time in 1..=3 {
            let row = &format!("made again, time {time}");
            net.client.ip("link delete a1");
            wait_for(&daemon, "absent", time);
            net.new_source(Family::V4).finds_closed(SSH, row);
            client.finds(true, SSH, row);
            net.add_second_link();
            // It was protected once at the start.
            wait_for(&daemon, "protecting", time + 1);
            is_protected(net, row);
        }
        daemon.stop();
    });
}

#[test]
fn a_link_made_again_with_its_old_index_is_protected() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let make = "link add b1 index 4711 type veth peer name c1";
        net.server.ip(make);
        let daemon = Daemon::start_with(&net.server, DOOR, &BOTH);
        // Without a pause, so that the two messages may be read together.
        net.server.ip_batch(&format!("link delete b1\n{make}"));
        wait::until("both are protected", || {
            attached_programs(&net.server).len() == 2
        });
        daemon.stop();
    });
}

#[test]
fn a_link_that_appears_late_is_protected() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let arguments = [&BOTH[..], &["--wait-for-interfaces"]].concat();
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        net.new_source(Family::V4).finds_closed(SSH, "the first");
        net.add_second_link();
        wait_for(&daemon, "protecting", 1);
        is_protected(net, "late");
        daemon.stop();
    });
}

/// udev renames new interfaces like this.
#[test]
fn a_link_that_gets_its_name_late_is_protected() {
    net::test(|net| {
        let arguments = [&BOTH[..], &["--wait-for-interfaces"]].concat();
        let daemon = Daemon::start_with(&net.server, DOOR, &arguments);
        net.server.ip("link add x1 type veth peer name y1");
        net.server.ip("link set x1 name b1");
        wait_for(&daemon, "protecting", 1);
        assert_eq!(attached_programs(&net.server).len(), 2);
        daemon.stop();
    });
}

/// Runs a test in a namespace of its own and in a runtime there.
fn test(test: impl AsyncFnOnce(&Namespace) + Send) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let namespace = Namespace::new("links");
    namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(&namespace));
    });
    drop(namespace);
    assert_eq!(namespace::leftovers(), [] as [String; 0], "left behind");
}

/// Changes, one after the other.
struct LinkChanges {
    watch: LinkWatch,
    changes: VecDeque<LinkChange>,
}

impl LinkChanges {
    fn open() -> Self {
        Self {
            watch: LinkWatch::open().unwrap(),
            changes: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> LinkChange {
        if self.changes.is_empty() {
            let changes = timeout(PATIENCE, self.watch.changed()).await;
            let changes = changes.unwrap_or_else(|_| panic!("no message arrives"));
            self.changes.extend(changes.unwrap());
        }
        self.changes.pop_front().unwrap()
    }

    /// Skips changes of other links, waits for this one, and returns the index.
    async fn receive(&mut self, name: &str, kind: LinkChangeKind) -> u32 {
        loop {
            let change = self.next().await;
            // Such messages come with others, or alone when a carrier appears.
            if change.name == name && change.kind != LinkChangeKind::Touched {
                assert_eq!(change.kind, kind, "{name}");
                return change.index;
            }
        }
    }

    /// Returns everything up to this link's appearance, and what was received together with it.
    async fn receive_all_up_to(&mut self, name: &str) -> Vec<LinkChange> {
        let mut all = Vec::new();
        loop {
            let change = self.next().await;
            let is_last = change.name == name;
            all.push(change);
            if is_last {
                all.extend(self.changes.drain(..));
                return all;
            }
        }
    }
}

/// Asserts that the second link is protected, and that a grant is valid there.
#[track_caller]
fn is_protected(net: &Net, row: &str) {
    let there = Family::V4.second_server();
    net.new_source(Family::V4).to(there).finds_closed(SSH, row);
    let source = net.new_source(Family::V4);
    source.knock(KNOCKS);
    source.to(there).finds(true, SSH, row);
}

/// Waits until an event of the second link was reported this many times.
#[track_caller]
fn wait_for(daemon: &Daemon, event: &str, times: usize) {
    let pattern = json!({"event": event, "interface": SERVER_LINK_2});
    wait::until(&format!("{pattern} {times} times"), || {
        daemon.events_like(&pattern).len() >= times
    });
}
