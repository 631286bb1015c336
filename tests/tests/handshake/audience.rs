//! Doors with handshakes that only some sources may use: to others their ports are silent.

use knock_tests::{
    daemon::Daemon,
    net::{Family, Net},
    server::Server,
    source::Source,
};
use serde_json::json;

use crate::{CONFIG, DECOYS, KNOCKS, SSH, catch_up, event_names, knocks, test};

const HERE: u8 = 200;
const ELSEWHERE: u8 = 100;

/// The prefixes of both families that have the source `HERE`, and not `ELSEWHERE`.
const FROM: &str = r#"from = ["198.51.100.192/26", "2001:db8:a::c0/122"]"#;

#[test]
fn only_sources_in_from_get_an_answer() {
    test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start(&net.server, &format!("{CONFIG}{FROM}\n"));
        for family in Family::ALL {
            let here = source(net, family, HERE);
            let elsewhere = source(net, family, ELSEWHERE);
            for port in KNOCKS.into_iter().chain(DECOYS) {
                elsewhere.finds_closed(port, &format!("{family}, a source elsewhere"));
            }
            elsewhere.finds_closed(SSH, &format!("{family}, a source elsewhere"));
            knocks(&here, &format!("{family}, a source in from"));
            drop(here.finds_open(SSH, &format!("{family}, a source in from")));
            catch_up(net, &daemon, family);
            let reasons = daemon.events_like(&json!({
                "event": "denied",
                "source": elsewhere.name(),
                "reason": "source-not-allowed",
            }));
            assert!(!reasons.is_empty(), "{family}: nothing is reported");
            let events = event_names(&daemon, &elsewhere);
            assert!(events.iter().all(|name| name == "denied"), "{events:?}");
        }
        daemon.stop();
    });
}

fn source(net: &Net, family: Family, number: u8) -> Source<'_> {
    net.source(family.source(number), family.server())
}
