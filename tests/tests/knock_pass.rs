//! Doors whose knocks reach the network stack: the service on a knock port still serves.

use knock_tests::{
    daemon::Daemon,
    net::{self, Family},
    record::Record,
    server::Server,
    source::echoes,
};
use serde_json::json;

const WEB: u16 = 80;
const GAME: u16 = 19_132;
const HIDDEN: u16 = 22;

#[test]
fn services_on_knock_ports_serve_where_knocks_pass() {
    net::test(|net| {
        let server = Server::tcp(&net.server, &[WEB, HIDDEN]).and_udp(&net.server, GAME);
        let record = Record::new();
        let keys = record.keys();
        let mut daemon = Daemon::start(&net.server, &doors(&format!("{keys}knock_pass = true")));
        for family in Family::ALL {
            let row = &family.to_string();
            let visitor = net.stranger(family);
            let mut page = visitor.finds_open(WEB, row);
            assert!(echoes(&mut page), "{row}: data to the web server");
            assert!(visitor.has_udp_echo(GAME), "{row}: the game's port");
            visitor.finds_closed(HIDDEN, row);
            record.gets(&format!("open web {}", visitor.name()));
            record.gets(&format!("open game {}", visitor.name()));

            let knocker = net.stranger(family);
            knocker.knock("udp/3389 tcp/80 udp/2021");
            record.gets(&format!("open maintenance {}", knocker.name()));
        }

        // The same doors, whose knocks are dropped.
        daemon.reload(&doors(&keys));
        for family in Family::ALL {
            let row = &family.to_string();
            let visitor = net.stranger(family);
            visitor.finds_closed(WEB, row);
            assert!(!visitor.has_udp_echo(GAME), "{row}: the game's port");
            assert!(!server.met(visitor.from, GAME), "{row}: the game's port");
            daemon.wait_for_event(
                &json!({"event": "opened", "door": "game", "source": visitor.name()}),
            );
            record.gets(&format!("open game {}", visitor.name()));
        }
        daemon.stop();
    });
}

/// Doors with knocks on ports where services listen; `keys` is for each.
fn doors(keys: &str) -> String {
    let door = |name: &str, knock: &str| {
        format!("[[door]]\nname = \"{name}\"\nknock = [{knock}]\nopen_for = \"30s\"\n{keys}\n")
    };
    format!("protect = [\"tcp/{HIDDEN}\"]\n")
        + &door("web", "\"tcp/80\"")
        + &door("game", "\"udp/19132\"")
        + &door("maintenance", "\"udp/3389\", \"tcp/80\", \"udp/2021\"")
}
