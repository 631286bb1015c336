//! An interface that stock xdp-tools filter: through libxdp's dispatcher where the kernel can run that, as in the
//! virtual machines.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

use std::{env, io::ErrorKind, time::Duration};

use knock_tests::{
    daemon::{self, Daemon},
    net::{self, Family, Net, SERVER_LINK},
    server::Server,
    ssh::{DOOR, KNOCKS, SSH},
};
use knock_user::kernel::tcx;
use serde_json::{Value, json};

/// A port that xdp-filter drops.
const FILTERED: u16 = 81;
/// One that it passes.
const FREE: u16 = 82;

#[test]
fn xdp_filter_and_knock_user_share_an_interface() {
    if tcx::is_available() != Some(true) {
        println!("this kernel has no TCX: the interface is refused, as tests/admission.rs checks");
        return;
    }
    for is_first in [true, false] {
        net::test(|net| {
            let row = &format!("xdp-filter is first: {is_first}");
            let _server = Server::tcp(&net.server, &[SSH]);
            if is_first {
                load(net);
            }
            let mode = if is_first { "auto" } else { "tc" };
            let config = format!("interfaces = [\"{SERVER_LINK}\"]\nmode = \"{mode}\"\n{DOOR}");
            let daemon = Daemon::start_with(&net.server, &config, &[]);
            daemon.wait_for_event(&json!({"event": "protecting", "mode": "tc"}));
            if is_first {
                let because = status(net)["mode_because"].to_string();
                let name = match env::var_os("KNOCK_VM") {
                    Some(_) => "`xdp_dispatcher`",
                    None => "`xdpfilt_",
                };
                assert!(because.contains(name), "no {name} in {because}");
            } else {
                load(net);
            }
            check(net, row, true);
            net.server.run("xdp-filter", &["unload", SERVER_LINK]);
            check(net, &format!("{row}, unloaded"), false);
            load(net);
            check(net, &format!("{row}, loaded again"), true);
            net.server.run("xdp-filter", &["unload", SERVER_LINK]);
            daemon.stop();
        });
    }
}

fn load(net: &Net) {
    net.server
        .run("xdp-filter", &["load", SERVER_LINK, "-m", "native"]);
    let port = FILTERED.to_string();
    net.server
        .run("xdp-filter", &["port", &port, "-p", "tcp", "-m", "dst"]);
}

/// Checks that both do their work.
#[track_caller]
fn check(net: &Net, row: &str, is_filtered: bool) {
    for family in Family::ALL {
        let row = &format!("{row}, {family}");
        let source = net.new_source(family);
        source.finds_closed(SSH, row);
        for (port, is_dropped) in [(FILTERED, is_filtered), (FREE, false)] {
            let kind = source
                .connect(port, Duration::from_secs(1))
                .unwrap_err()
                .kind();
            let is_refused = kind == ErrorKind::ConnectionRefused;
            assert_eq!(is_refused, !is_dropped, "{row}: tcp/{port}: {kind:?}");
        }
        source.knock(KNOCKS);
        source.finds(true, SSH, row);
    }
    assert_eq!(status(net)["mode"], "tc", "{row}");
}

/// Returns the entry of the interface in `status --json`.
#[track_caller]
fn status(net: &Net) -> Value {
    let (_, output) = daemon::ask(&net.server, &["status", "--json"]);
    let line = output.lines().find(|line| line.starts_with('{'));
    let status: Value = serde_json::from_str(line.unwrap_or(&output)).unwrap();
    status["interfaces"][0].clone()
}
