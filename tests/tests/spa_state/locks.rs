//! Locks of the files of used packets that another process does not release.

use knock_tests::{daemon, net, otp::Otp, server::Server, ssh::SSH};
use nix::sys::signal::Signal::SIGTERM;

use crate::keys::{KeyedHost, gets_in, start};

/// Neither packets nor requests nor an end wait for a lock; what could not be recorded is reported.
#[test]
fn a_lock_of_another_process_delays_no_packet_no_request_and_no_stop() {
    const ROWS: [(&str, &str); 2] = [
        ("used stamps", "spa-stamps.lock"),
        ("used sequences", "used-sequences.lock"),
    ];
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let config = format!(
            "{}[[door]]\nname = \"timed\"\nopen = [\"tcp/8080\"]\n{}\n",
            keys.config("alice", &keys.text()),
            Otp::steady("correct horse battery staple").key()
        );
        for (row, lock) in ROWS {
            let daemon = start(net, &config);
            let held = net.server.hold(lock);
            gets_in(net, &channel, row);
            for words in [&["status"][..], &["list"], &["users"]] {
                let (_, answer) = daemon::ask(&net.server, words);
                assert!(!answer.contains("answer"), "{row}: {words:?}: {answer}");
            }
            gets_in(net, &channel, row);
            let ended = daemon.end_by(SIGTERM);
            assert!(ended.status.success(), "{row}: {ended:?}");
            assert!(ended.stderr.contains(lock), "{row}: {ended:?}");
            drop(held);
        }
    });
}
