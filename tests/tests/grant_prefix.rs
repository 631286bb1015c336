//! Grants that cover the prefix of a source, across a reload that makes them wider or narrower.

use std::net::IpAddr;

use knock_tests::{
    daemon::{self, Daemon},
    net::{self, Family, Net},
    server::Server,
    source::{Source, echoes},
    ssh::{KNOCKS, SSH},
};
use nix::sys::signal::Signal::SIGTERM;
use serde_json::json;

const WIDE: &str = "grant_prefix = { ipv4 = 30, ipv6 = 64 }";
const WIDER: &str = "grant_prefix = { ipv4 = 24, ipv6 = 48 }";

/// What a start over existing protection asks for.
const KEEP: [&str; 2] = ["--on-exit", "keep"];

#[test]
fn a_grant_covers_the_prefix_of_its_source() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let mut daemon = Daemon::start_with(&net.server, &door(WIDE), &[]);
        for sources in Sources::all(net) {
            let Sources {
                knocks,
                inside,
                outside,
                covered,
            } = sources;
            let row = covered;
            inside.finds_closed(SSH, row);
            knocks.knock(KNOCKS);
            daemon.wait_for_event(&json!({"event": "opened", "source": covered,
                "asked_from": knocks.name(), "door": "ssh"}));
            knocks.finds(true, SSH, row);
            let mut connection = inside.finds_open(SSH, row);
            outside.finds_closed(SSH, row);

            let (status, listed) = daemon::ask(&net.server, &["list"]);
            assert_eq!(status, Some(0), "{row}: {listed}");
            assert!(listed.contains(covered), "{row}: {listed}");
            let question = ["explain", &inside.name(), "tcp/22"];
            let (_, explained) = daemon::ask(&net.server, &question);
            let expected = format!("its network {covered} has a grant for ssh");
            assert!(explained.contains(&expected), "{row}: {explained}");

            let (status, revoked) = daemon::ask(&net.server, &["revoke", &inside.name()]);
            assert_eq!(status, Some(0), "{row}: {revoked}");
            daemon.wait_for_event(&json!({"event": "closed", "source": covered,
                "reason": "revoked"}));
            knocks.finds_closed(SSH, row);
            inside.finds_closed(SSH, row);
            assert!(echoes(&mut connection), "{row}: what was open continues");

            let question = ["grant", &inside.name(), "--door", "ssh"];
            let (status, granted) = daemon::ask(&net.server, &question);
            assert_eq!(status, Some(0), "{row}: {granted}");
            assert!(granted.contains(covered), "{row}: {granted}");
            knocks.finds(true, SSH, row);
            outside.finds_closed(SSH, row);
        }
        daemon.reload(&door(WIDER));
        for sources in Sources::all(net) {
            let row = &format!("wider than {}", sources.covered);
            sources.outside.finds(true, SSH, row);
            sources.knocks.finds(true, SSH, row);
        }
        daemon.reload(&door(WIDE));
        for sources in Sources::all(net) {
            let row = &format!("{} again", sources.covered);
            for source in [&sources.knocks, &sources.inside, &sources.outside] {
                source.finds_closed(SSH, row);
            }
            sources.knocks.knock(KNOCKS);
            sources.inside.finds(true, SSH, row);
        }
        daemon.reload(&door(""));
        for sources in Sources::all(net) {
            let row = &format!("no longer {}", sources.covered);
            for source in [&sources.knocks, &sources.inside, &sources.outside] {
                source.finds_closed(SSH, row);
            }
            daemon.wait_for_event(&json!({"event": "closed", "source": sources.covered,
                "reason": "narrowed"}));
        }
        daemon.stop();
    });
}

/// A prefix whose width another configuration does not change keeps its grants, whichever program judges them.
#[test]
fn a_grant_of_a_prefix_continues_over_upgrades() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let daemon = Daemon::start_with(&net.server, &door(WIDE), &KEEP);
        for sources in Sources::all(net) {
            sources.knocks.knock(KNOCKS);
            sources.inside.finds(true, SSH, sources.covered);
        }
        daemon.leave(SIGTERM);
        let other = format!(
            "trust = [\"10.0.0.0/8\"]\nprotect = [\"tcp/25\"]\n{}",
            door(WIDE)
        );
        for (row, config, more, is_wider) in [
            ("the same", door(WIDE), &[][..], false),
            ("another program", door(WIDE), &["-v"], false),
            ("other features", other, &["-vv"], false),
            ("wider grants", door(WIDER), &[], true),
        ] {
            let arguments = [&KEEP[..], more].concat();
            Daemon::start_with(&net.server, &config, &arguments).leave(SIGTERM);
            for sources in Sources::all(net) {
                let row = &format!("{row}, {}", sources.covered);
                sources.knocks.finds(true, SSH, row);
                sources.inside.finds(true, SSH, row);
                sources.outside.finds(is_wider, SSH, row);
            }
        }
        let daemon = Daemon::start_with(&net.server, &door(WIDE), &KEEP);
        for sources in Sources::all(net) {
            let row = &format!("narrower again, {}", sources.covered);
            for source in [&sources.knocks, &sources.inside, &sources.outside] {
                source.finds_closed(SSH, row);
            }
        }
        daemon.leave(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// Returns the door with these lengths.
fn door(prefix: &str) -> String {
    format!(
        "interfaces = [\"b0\"]\n\
         [[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"udp/8000\", \"tcp/9000\"]\n\
         open = [\"tcp/22\"]\nopen_for = \"10m\"\n{prefix}\n"
    )
}

/// The sources of a family: the one that knocks, another one of its prefix, and one of the wider prefix alone.
struct Sources<'n> {
    knocks: Source<'n>,
    inside: Source<'n>,
    outside: Source<'n>,
    /// What the grant covers.
    covered: &'static str,
}

impl<'n> Sources<'n> {
    fn all(net: &'n Net) -> [Self; 2] {
        let source = |family: Family, address: &str| {
            let address: IpAddr = address.parse().unwrap_or_else(|error| panic!("{error}"));
            net.source(address, family.server())
        };

        [
            Self {
                knocks: source(Family::V4, "198.51.100.9"),
                inside: source(Family::V4, "198.51.100.10"),
                outside: source(Family::V4, "198.51.100.12"),
                covered: "198.51.100.8/30",
            },
            Self {
                knocks: source(Family::V6, "2001:db8:a::9"),
                inside: source(Family::V6, "2001:db8:a::a0"),
                outside: source(Family::V6, "2001:db8:a:1::1"),
                covered: "2001:db8:a::/64",
            },
        ]
    }
}
