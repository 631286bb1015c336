//! Each kind of interface whose packets begin with the IP header, with the driver that real hosts use.
//!
//! `cargo xtask vm` runs these tests: few other kernels have all the drivers.

#![expect(
    clippy::unwrap_used,
    reason = "what a test can't do, it says by a panic"
)]

use std::{fs, io::ErrorKind, path::Path, process::Command, time::Duration};

use knock_tests::{
    daemon::{self, Daemon},
    net::{self, Family, Net},
    server::Server,
    sleep,
    ssh::{DOOR, KNOCKS, SSH},
    tun::{TUN_LINK, TunLink},
    wait,
};
use knock_user::kernel::tcx;
use serde_json::Value;

/// Part of the virtual machine's busybox.
const MODPROBE: &str = "modprobe";
/// Modules that the kernel asks for by names which busybox does not find.
const MODULES: [&str; 9] = [
    "xfrm_user",
    "esp4",
    "xfrm_interface",
    "ip_vti",
    "ip6_gre",
    "seqiv",
    "gcm",
    "ghash_generic",
    "aes_generic",
];
const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const BOTH: &[Family] = &Family::ALL;
/// Where the program can read the packets of a kind.
const EVERYWHERE: &[&str] = &["skb", "tc"];
/// Behind a generic program, the length of the header in front of the packet is lost.
const AT_TC: &[&str] = &["tc"];

/// The algorithm and key of IPsec, as `ip xfrm state` takes them.
const ENCRYPTED: &str = "aead rfc4106(gcm(aes)) 0x0123456789abcdef0123456789abcdef01234567 128";

/// A kind of interface: what makes one at each end, and through what it is tested. The words `LOCAL`, `REMOTE`,
/// `LOCAL6` and `REMOTE6` stand for the addresses of the link below, `UNDERLAY` for its name, and `INNER` for the
/// address of the other end in the tunnel.
struct Kind {
    name: &'static str,
    link: &'static str,
    /// Lines for `ip -batch` before and after the interface is made.
    before: &'static str,
    after: &'static str,
    families: &'static [Family],
    modes: &'static [&'static str],
}

const KINDS: [Kind; 10] = [
    Kind {
        name: "ipip",
        link: "type ipip local LOCAL remote REMOTE",
        before: "",
        after: "",
        families: V4,
        modes: EVERYWHERE,
    },
    Kind {
        name: "sit",
        link: "type sit local LOCAL remote REMOTE",
        before: "",
        after: "",
        families: V6,
        modes: EVERYWHERE,
    },
    Kind {
        name: "ip6tnl",
        link: "type ip6tnl mode any local LOCAL6 remote REMOTE6",
        before: "",
        after: "",
        families: BOTH,
        modes: EVERYWHERE,
    },
    Kind {
        name: "gre",
        link: "type gre local LOCAL remote REMOTE",
        before: "",
        after: "",
        families: BOTH,
        modes: EVERYWHERE,
    },
    Kind {
        name: "ip6gre",
        link: "type ip6gre local LOCAL6 remote REMOTE6",
        before: "",
        after: "",
        families: BOTH,
        modes: EVERYWHERE,
    },
    Kind {
        name: "gre without a remote",
        link: "type gre local LOCAL key 7",
        before: "",
        after: "neighbour replace INNER lladdr REMOTE dev t0 nud permanent",
        families: V4,
        modes: AT_TC,
    },
    Kind {
        name: "wireguard",
        link: "type wireguard",
        before: "",
        after: "",
        families: BOTH,
        modes: EVERYWHERE,
    },
    Kind {
        name: "xfrm",
        link: "type xfrm dev UNDERLAY if_id 7",
        before: "xfrm state add src LOCAL dst REMOTE proto esp spi 7 reqid 7 mode tunnel if_id 7 ENCRYPTED
                 xfrm state add src REMOTE dst LOCAL proto esp spi 7 reqid 7 mode tunnel if_id 7 ENCRYPTED
                 xfrm policy add FOR-ALL dir out if_id 7 tmpl src LOCAL dst REMOTE proto esp reqid 7 mode tunnel
                 xfrm policy add FOR-ALL dir in if_id 7 tmpl src REMOTE dst LOCAL proto esp reqid 7 mode tunnel",
        after: "",
        families: V4,
        modes: AT_TC,
    },
    Kind {
        name: "vti",
        link: "type vti local LOCAL remote REMOTE key 7",
        before: "xfrm state add src LOCAL dst REMOTE proto esp spi 7 reqid 7 mode tunnel ENCRYPTED
                 xfrm state add src REMOTE dst LOCAL proto esp spi 7 reqid 7 mode tunnel ENCRYPTED
                 xfrm policy add FOR-ALL dir out mark 7 tmpl src LOCAL dst REMOTE proto esp reqid 7 mode tunnel
                 xfrm policy add FOR-ALL dir in mark 7 tmpl src REMOTE dst LOCAL proto esp reqid 7 mode tunnel",
        after: "",
        families: V4,
        modes: AT_TC,
    },
    Kind {
        name: "netkit",
        link: "",
        before: "",
        after: "",
        families: V4,
        modes: AT_TC,
    },
];

#[test]
fn each_kind_of_interface_is_protected() {
    sleep::assert_it_may_be_done();
    for module in MODULES {
        let _built_in = Command::new(MODPROBE).arg(module).status();
    }
    for kind in &KINDS {
        for mode in kind.modes {
            let has_tcx = tcx::is_available() == Some(true);
            // netkit came after TCX.
            if *mode == "tc" && !has_tcx {
                println!("{}, {mode}: this kernel has no TCX", kind.name);
                continue;
            }
            net::test(|net| is_protected(net, kind, mode));
            println!("{}, {mode}: protected", kind.name);
        }
    }
}

/// Checks that unauthorized sources are refused, that a connection is made after knocks through the interface, and that
/// unused ports answer.
#[track_caller]
fn is_protected(net: &Net, kind: &Kind, mode: &str) {
    make(net, kind);
    TunLink::address(net);
    batch(net, kind.after);
    let server = Server::tcp(&net.server, &[SSH]);
    let config = format!("interfaces = [\"{TUN_LINK}\"]\nmode = \"{mode}\"\n{DOOR}");
    for family in kind.families {
        let source = net.new_source(*family).to(family.second_server());
        let row = format!("{}, {mode}, {family}, before the start", kind.name);
        wait::until(&row, || source.connect(SSH, Duration::from_secs(2)).is_ok());
    }
    let daemon = Daemon::start_with(&net.server, &config, &[]);
    let (_, printed) = daemon::ask(&net.server, &["status", "--json"]);
    let line = printed.lines().find(|line| line.starts_with('{')).unwrap();
    let status: Value = serde_json::from_str(line).unwrap();
    assert_eq!(status["interfaces"][0]["mode"], *mode, "{}", kind.name);
    for family in kind.families {
        let row = format!("{}, {mode}, {family}", kind.name);
        let source = net.new_source(*family).to(family.second_server());
        source.finds_closed(SSH, &row);
        let refused = source.connect(81, Duration::from_secs(5)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{row}");
        source.knock(KNOCKS);
        source.finds(true, SSH, &row);
        let other = net.new_source(*family).to(family.second_server());
        other.finds_closed(SSH, &format!("{row}, another source"));
        assert!(!server.met(other.from, SSH), "{row}");
    }
    daemon.stop();
}

/// Makes the interface at both ends.
#[track_caller]
fn make(net: &Net, kind: &Kind) {
    match kind.name {
        "netkit" => {
            // `ip` knows no options of it.
            let server = net.server.name();
            net.client.ip("link add t0 type netkit");
            let shown = net
                .client
                .run("ip", &["-o", "link", "show", "type", "netkit"]);
            let names = shown
                .lines()
                .filter_map(|line| line.split([' ', '@']).nth(1));
            let peer = names
                .map(|name| name.trim_end_matches(':'))
                .find(|name| *name != TUN_LINK);
            let peer = peer.unwrap_or_else(|| panic!("no peer in {shown}"));
            net.client
                .ip(&format!("link set {peer} netns {server} name {TUN_LINK}"));
        }
        "wireguard" => {
            net.client.ip("link add t0 type wireguard");
            net.server.ip("link add t0 type wireguard");
            let directory = tempfile::tempdir().unwrap();
            let keys = [
                key(directory.path(), "client"),
                key(directory.path(), "server"),
            ];
            for (namespace, own, other, endpoint) in [
                (&net.client, 0, 1, "192.0.2.2:51820"),
                (&net.server, 1, 0, "192.0.2.1:51820"),
            ] {
                let private = keys[own].0.to_str().unwrap();
                let set = [
                    "set",
                    TUN_LINK,
                    "listen-port",
                    "51820",
                    "private-key",
                    private,
                ];
                let peer = ["peer", &keys[other].1, "endpoint", endpoint];
                let allowed = ["allowed-ips", "0.0.0.0/0,::/0"];
                namespace.run("wg", &[&set[..], &peer, &allowed].concat());
            }
        }
        _ => {
            batch(net, kind.before);
            batch(net, &format!("link add t0 {}", kind.link));
        }
    }
}

/// Runs lines of `ip` at both ends.
#[track_caller]
fn batch(net: &Net, lines: &str) {
    let ends = [
        (
            &net.client,
            ["192.0.2.1", "192.0.2.2"],
            ["2001:db8::1", "2001:db8::2"],
            ["a0", "192.0.2.130"],
        ),
        (
            &net.server,
            ["192.0.2.2", "192.0.2.1"],
            ["2001:db8::2", "2001:db8::1"],
            ["b0", "192.0.2.129"],
        ),
    ];
    for (namespace, v4, v6, [underlay, inner]) in ends {
        let lines = lines
            .replace("LOCAL6", v6[0])
            .replace("REMOTE6", v6[1])
            .replace("LOCAL", v4[0])
            .replace("REMOTE", v4[1])
            .replace("UNDERLAY", underlay)
            .replace("INNER", inner)
            .replace("ENCRYPTED", ENCRYPTED)
            .replace("FOR-ALL", "src 0.0.0.0/0 dst 0.0.0.0/0");
        if !lines.is_empty() {
            namespace.ip_batch(&lines);
        }
    }
}

/// Makes a key; returns the file of the private one, and the public one.
fn key(directory: &Path, name: &str) -> (std::path::PathBuf, String) {
    let private = Command::new("wg").arg("genkey").output().unwrap().stdout;
    let path = directory.join(name);
    fs::write(&path, private).unwrap();
    let public = Command::new("wg")
        .arg("pubkey")
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    (
        path,
        String::from_utf8(public.stdout).unwrap().trim().to_owned(),
    )
}
