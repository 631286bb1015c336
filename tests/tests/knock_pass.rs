//! Doors whose knocks reach the network stack: the service on a knock port still serves.

use knock_tests::{
    daemon::Daemon,
    net::{self, Family},
    record::CommandLog,
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
        let record = CommandLog::new();
        let keys = record.keys();
        let mut daemon = Daemon::start(&net.server, &doors(&format!("{keys}knock_pass = true")));
        for family in Family::ALL {
            let row = &family.to_string();
            let other_client = net.new_source(family);
            let mut page = other_client.finds_open(WEB, row);
            assert!(echoes(&mut page), "{row}: data to the web server");
            assert!(other_client.has_udp_echo(GAME), "{row}: the game's port");
            other_client.finds_closed(HIDDEN, row);
            record.gets(&format!("open web {}", other_client.name()));
            record.gets(&format!("open game {}", other_client.name()));

            let client = net.new_source(family);
            client.knock("udp/3389 tcp/80 udp/2021");
            record.gets(&format!("open maintenance {}", client.name()));
        }

        // The same doors, whose knocks are dropped.
        daemon.reload(&doors(&keys));
        for family in Family::ALL {
            let row = &family.to_string();
            let other_client = net.new_source(family);
            other_client.finds_closed(WEB, row);
            assert!(!other_client.has_udp_echo(GAME), "{row}: the game's port");
            assert!(
                !server.met(other_client.from, GAME),
                "{row}: the game's port"
            );
            daemon.wait_for_event(
                &json!({"event": "opened", "door": "game", "source": other_client.name()}),
            );
            record.gets(&format!("open game {}", other_client.name()));
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
