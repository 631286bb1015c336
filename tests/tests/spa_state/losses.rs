//! Losses of the record of used packets, one after another.

use std::fs;

use knock_sequence::spa::PrivateKey;
use knock_tests::{net, server::Server, ssh::SSH};
use serde_json::{Value, json};

use crate::keys::{KeyedHost, gets_in, is_refused, reboot_uncleanly, stamps, start};

/// The mark of this boot has the moment of a loss too: a key that is configured only afterwards has no word in the
/// replay cache that would have it.
#[test]
fn a_loss_is_known_after_its_record_is_lost_too() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let other = PrivateKey::generate().unwrap();
        // The packet stays fresh for longer than the test takes.
        let config = |keys_text: &str| keys.config("alice", keys_text).replace("10s", "10m");
        let daemon = start(net, &config(&keys.text()));
        let used = gets_in(net, &keys.channel(), "before");
        daemon.kill();
        reboot_uncleanly(&net.server);
        let path = stamps(&net.server);
        let text = fs::read_to_string(&path).unwrap();
        let mut state: Value = serde_json::from_str(&text).unwrap();
        state["keys"] = json!({});
        fs::write(&path, state.to_string()).unwrap();
        start(net, &config(&format!("\"{}\"", other.public()))).kill();
        for file in [path.clone(), path.with_extension("lock")] {
            fs::remove_file(file).unwrap();
        }
        let daemon = start(net, &config(&keys.text()));
        is_refused(net, &used, "after both losses");
        daemon.stop();
    });
}
