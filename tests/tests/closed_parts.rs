//! A part of a grant that a closing sequence has closed stays closed across reloads, restarts, crashes and upgrades.

use knock_tests::{
    daemon::{self, Daemon},
    net::{self, Family},
    server::Server,
    source::Source,
    ssh::{KNOCKS, SSH},
};
use nix::sys::signal::Signal::SIGTERM;

const WEB: u16 = 443;
const OTHER: u16 = 80;
/// What closes [`WEB`], and nothing else.
const CLOSES: &str = "tcp/9100 udp/9107 tcp/9095";

/// What a start over existing protection asks for.
const KEEP: [&str; 2] = ["--on-exit", "keep"];

/// Returns the configuration of the door, and of the one that closes some ports of it.
fn config(open: &str, close: &str) -> String {
    let shut = match close {
        "" => String::new(),
        close => format!(
            "[[door]]\nname = \"shut\"\nknock = [\"tcp/9100\", \"udp/9107\", \"tcp/9095\"]\nclose = [{close}]\n"
        ),
    };
    format!(
        "interfaces = [\"b0\"]\nprotect = [\"tcp/22\", \"tcp/443\", \"tcp/80\"]\n\
         [[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\n\
         open = [{open}]\nopen_for = \"10m\"\n{shut}"
    )
}

const BOTH: &str = "\"tcp/22\", \"tcp/443\"";
const ALL: &str = "\"tcp/22\", \"tcp/443\", \"tcp/80\"";

/// Checks which of the ports are open for a source.
fn finds(source: &Source<'_>, open: &[u16], row: &str) {
    for port in [SSH, WEB, OTHER] {
        source.finds(open.contains(&port), port, &format!("{row}, port {port}"));
    }
}

#[test]
fn a_closed_part_of_a_grant_stays_closed() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB, OTHER]);
        let text = config(BOTH, "\"tcp/443\"");
        let mut daemon = Daemon::start_with(&net.server, &text, &KEEP);
        let sources = Family::ALL.map(|family| net.new_source(family));
        let witness = net.new_source(Family::V4);
        witness.knock(KNOCKS);
        for source in &sources {
            source.knock(KNOCKS);
            finds(source, &[SSH, WEB], "after the knocks");
            source.knock(CLOSES);
            finds(source, &[SSH], "after the closing sequence");
        }
        let shares = format!(
            "{text}[[door]]\nname = \"web\"\nknock = [\"tcp/8100\", \"udp/8107\", \"tcp/8095\"]\nopen = [{BOTH}]\n"
        );
        let third = config(ALL, "\"tcp/443\", \"tcp/80\"");
        for (row, text) in [
            ("a reload of the same", &text),
            ("another door that opens the ports", &shares),
            ("the first one alone again", &text),
            ("a third port", &third),
            ("two ports again", &text),
            ("the other port can be closed", &config(BOTH, "\"tcp/22\"")),
            ("it can't be closed again", &text),
        ] {
            daemon.reload(text);
            for source in &sources {
                finds(source, &[SSH], row);
            }
        }
        finds(&witness, &[SSH, WEB], "a grant of which nothing was closed");
        daemon.kill();
        let check = |row: &str| {
            for source in &sources {
                finds(source, &[SSH], row);
            }
            finds(&witness, &[SSH, WEB], row);
        };
        check("without a daemon");
        let daemon = Daemon::start_with(&net.server, &text, &KEEP);
        check("after a crash");
        daemon.leave(SIGTERM);
        let daemon = Daemon::start_with(&net.server, &text, &["--on-exit", "keep", "-v"]);
        check("after an upgrade");
        for source in &sources {
            source.knock(KNOCKS);
            finds(source, &[SSH, WEB], "after other knocks");
        }
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// One port group for both ports: a grant of which a part is closed opens none of it.
#[test]
fn a_closed_part_is_not_opened_by_a_door_without_closing_sequence() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH, WEB, OTHER]);
        let mut daemon = Daemon::start_with(&net.server, &config(BOTH, "\"tcp/443\""), &[]);
        let [closed, whole] = [(); 2].map(|()| net.new_source(Family::V4));
        for source in [&closed, &whole] {
            source.knock(KNOCKS);
            finds(source, &[SSH, WEB], "after the knocks");
        }
        closed.knock(CLOSES);
        finds(&closed, &[SSH], "after the closing sequence");
        daemon.reload(&config(BOTH, ""));
        finds(&closed, &[], "without a closing sequence");
        finds(&whole, &[SSH, WEB], "a grant of which nothing was closed");
        daemon.stop();
    });
}
