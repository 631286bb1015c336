//! Starting knock-user while the host is in use.

use knock_tests::{
    daemon::Daemon,
    net::{self, Family},
    server::Server,
    source::{echoes, is_cut},
    ssh::{DOOR, SSH},
};
use serde_json::json;

#[test]
fn existing_connections_continue_after_a_start() {
    for family in Family::ALL {
        net::test(|net| {
            let _server = Server::tcp(&net.server, &[SSH]);
            let source = net.new_source(family);
            let mut connection = source.finds_open(SSH, "not protected yet");
            assert!(echoes(&mut connection), "{family:?}: before");
            let daemon = Daemon::start(&net.server, DOOR);
            daemon.wait_for_event(&json!({
                "event": "kept",
                "source": source.name(),
                "protocol": "tcp",
                "port": SSH,
                "source_port": connection.local_addr().unwrap().port(),
            }));
            source.finds_closed(SSH, "a new connection");
            assert!(echoes(&mut connection), "{family:?}: after");
        });
    }
}

#[test]
fn with_keep_false_a_start_cuts_connections_and_warns() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let source = net.new_source(Family::V4);
        let mut connection = source.finds_open(SSH, "not protected yet");
        let config = format!("[established]\nkeep = false\n{DOOR}");
        let daemon = Daemon::start(&net.server, &config);
        assert!(is_cut(&mut connection));
        let warning = daemon.process().stderr();
        assert!(warning.contains("keep = false"), "{warning}");
    });
}
