//! Ports that lead to others by rules of nftables and iptables: those that open what is protected are
//! named, those that are served are exempt, and what can't be read is reported.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use aya::maps::{Array, Map, MapData};
use knock_common::{
    layout::{PortKind, PortRule, port_index},
    packet::Protocol,
};
use knock_tests::{
    binary::binaries,
    daemon::{Daemon, config_file},
    namespace::{Namespace, text},
    net::{self, Family},
    pins,
    ssh::{DOOR, SSH},
    wait,
};
use knock_user::kernel::maps::Plain;
use serde_json::json;

/// Rules, and the lines that `check` prints about them; tcp/22 is protected.
const ROWS: &[(&str, By, &[&str])] = &[
    (
        "one port",
        By::Nft("table ip t { chain c { type nat hook prerouting priority dstnat;
            tcp dport 2222 redirect to :22; }; }"),
        &["tcp/2222 is translated to tcp/22, after packets were filtered"],
    ),
    (
        "a range",
        By::Nft("table ip t { chain c { type nat hook prerouting priority dstnat;
            tcp dport 8000-8010 dnat to 192.0.2.2:22; }; }"),
        &["tcp/8000-8010 are translated to tcp/22 of 192.0.2.2"],
    ),
    (
        "maps, named and not",
        By::Nft("table ip t {
            map m { type inet_service : ipv4_addr . inet_service; elements = { 2201 : 10.0.0.2 . 22 }; }
            map p { type inet_service : inet_service; flags interval; elements = { 2300-2310 : 22 }; }
            chain c { type nat hook prerouting priority dstnat;
            dnat ip to tcp dport map @m
            meta l4proto tcp redirect to :tcp dport map @p
            dnat ip to tcp dport map { 2202 : 10.0.0.2 . 22, 2203-2204 : 10.0.0.3 . 22 }
            dnat ip to ip daddr . tcp dport map { 192.0.2.2 . 2205 : 10.0.0.3 . 22 }; }; }"),
        &[
            "tcp/2201-2202 are translated to tcp/22 of 10.0.0.2",
            "tcp/2203-2205 are translated to tcp/22 of 10.0.0.3",
            "tcp/2300-2310 are translated to tcp/22, after",
        ],
    ),
    (
        "maps of verdicts",
        By::Nft("table ip t {
            map v { type ipv4_addr . inet_proto . inet_service : verdict;
                    elements = { 192.0.2.2 . tcp . 2210 : goto in }; }
            chain in { meta l4proto tcp redirect to :22; }
            chain c { type nat hook prerouting priority dstnat;
            ip daddr . meta l4proto . th dport vmap @v
            tcp dport vmap { 2212 : jump in, 2213-2214 : goto in }; }; }"),
        &[
            "tcp/2210 is translated to tcp/22, after",
            "tcp/2212-2214 are translated to tcp/22, after",
        ],
    ),
    (
        "both families",
        By::Nft("table inet t { chain c { type nat hook prerouting priority dstnat;
            tcp dport 2220 dnat ip6 to [2001:db8::2]:22; tcp dport { 2221, 2223 } redirect to :22; }; }"),
        &[
            "tcp/2220 is translated to tcp/22 of 2001:db8::2",
            "tcp/2221 is translated to tcp/22, after",
            "tcp/2223 is translated to tcp/22, after",
        ],
    ),
    (
        "written into packets",
        By::Nft("table netdev t { chain c { type filter hook ingress device b0 priority 0;
            tcp dport 2230 tcp dport set 22; }; }"),
        &["tcp/2230 is translated to tcp/22, after"],
    ),
    (
        "by a mark",
        By::Nft("table ip t { chain c { type nat hook prerouting priority dstnat;
            meta mark 1 meta l4proto tcp redirect to :22; }; }"),
        &["a port translation can't be read: chain c of table ip t (nft) translates ports that \
           are chosen elsewhere"],
    ),
    (
        "iptables-nft",
        By::Commands("iptables-nft -t nat -N WEB
            iptables-nft -t nat -A PREROUTING -p tcp --dport 2240 -j WEB
            iptables-nft -t nat -A WEB -p tcp -j REDIRECT --to-ports 22
            iptables-nft -t nat -A PREROUTING -p tcp -m multiport --dports 2241,2250:2259 \
                -j DNAT --to-destination 10.0.0.1:20-30
            ip6tables-nft -t nat -A PREROUTING -p tcp --dport 2242 -j DNAT --to-destination [2001:db8::9]:22"),
        &[
            "tcp/2240 is translated to tcp/22, after",
            "tcp/2241 is translated to tcp/20-30 of 10.0.0.1",
            "tcp/2250-2259 are translated to tcp/20-30 of 10.0.0.1",
            "tcp/2242 is translated to tcp/22 of 2001:db8::9",
        ],
    ),
    (
        "iptables-legacy",
        By::Commands("iptables-legacy -t nat -A PREROUTING -p tcp --dport 2260:2269 -j REDIRECT --to-ports 22
            ip6tables-legacy -t nat -A PREROUTING -p tcp --dport 2270 -j DNAT --to-destination [2001:db8::9]:22"),
        &[
            "tcp/2260-2269 are translated to tcp/22, after",
            "tcp/2270 is translated to tcp/22 of 2001:db8::9",
        ],
    ),
    (
        "Kubernetes with nftables",
        By::Nft("table ip kube-proxy {
            map service-ips { type ipv4_addr . inet_proto . inet_service : verdict;
                elements = { 10.96.0.10 . tcp . 2280 : goto service-2QRHZV4L-default/web/tcp/ssh }; }
            map service-nodeports { type inet_proto . inet_service : verdict;
                elements = { tcp . 30080 : goto external-2QRHZV4L-default/web/tcp/ssh }; }
            set nodeport-ips { type ipv4_addr; elements = { 192.0.2.2 }; }
            chain mark-for-masquerade { mark set mark or 0x4000; }
            chain endpoint-A { ip saddr 10.244.1.2 jump mark-for-masquerade; meta l4proto tcp dnat to 10.244.1.2:22; }
            chain endpoint-B { meta l4proto tcp dnat to 10.244.2.2:22; }
            chain service-2QRHZV4L-default/web/tcp/ssh {
                ip daddr 10.96.0.10 ip saddr != 10.244.0.0/16 jump mark-for-masquerade;
                numgen random mod 2 vmap { 0 : goto endpoint-A, 1 : goto endpoint-B }; }
            chain external-2QRHZV4L-default/web/tcp/ssh { jump mark-for-masquerade;
                goto service-2QRHZV4L-default/web/tcp/ssh; }
            chain services { ip daddr . meta l4proto . th dport vmap @service-ips;
                ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }
            chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
            chain nat-output { type nat hook output priority -100; jump services; }; }"),
        &[
            "tcp/2280 is translated to tcp/22 of 10.244.1.2",
            "tcp/2280 is translated to tcp/22 of 10.244.2.2",
            "tcp/30080 is translated to tcp/22 of 10.244.1.2",
            "tcp/30080 is translated to tcp/22 of 10.244.2.2",
        ],
    ),
    (
        "Kubernetes with iptables",
        By::Commands("iptables-nft -t nat -N KUBE-SERVICES
            iptables-nft -t nat -N KUBE-NODEPORTS
            iptables-nft -t nat -N KUBE-MARK-MASQ
            iptables-nft -t nat -N KUBE-EXT-2QRHZV4L
            iptables-nft -t nat -N KUBE-SVC-2QRHZV4L
            iptables-nft -t nat -N KUBE-SEP-A
            iptables-nft -t nat -N KUBE-SEP-B
            iptables-nft -t nat -A PREROUTING -m comment --comment portals -j KUBE-SERVICES
            iptables-nft -t nat -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment default/web:ssh \
                -m tcp --dport 2281 -j KUBE-SVC-2QRHZV4L
            iptables-nft -t nat -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
            iptables-nft -t nat -A KUBE-NODEPORTS -p tcp -m comment --comment default/web:ssh -m tcp --dport 30081 \
                -j KUBE-EXT-2QRHZV4L
            iptables-nft -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
            iptables-nft -t nat -A KUBE-EXT-2QRHZV4L -j KUBE-MARK-MASQ
            iptables-nft -t nat -A KUBE-EXT-2QRHZV4L -j KUBE-SVC-2QRHZV4L
            iptables-nft -t nat -A KUBE-SVC-2QRHZV4L -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
            iptables-nft -t nat -A KUBE-SVC-2QRHZV4L -j KUBE-SEP-B
            iptables-nft -t nat -A KUBE-SEP-A -s 10.244.1.2/32 -j KUBE-MARK-MASQ
            iptables-nft -t nat -A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:22
            iptables-nft -t nat -A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.244.2.2:22"),
        &[
            "tcp/2281 is translated to tcp/22 of 10.244.1.2",
            "tcp/2281 is translated to tcp/22 of 10.244.2.2",
            "tcp/30081 is translated to tcp/22 of 10.244.1.2",
            "tcp/30081 is translated to tcp/22 of 10.244.2.2",
        ],
    ),
    (
        "the host ports of pods",
        By::Commands("iptables-nft -t nat -N CNI-HOSTPORT-DNAT
            iptables-nft -t nat -N CNI-DN-0123456789abcdef
            iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
            iptables-nft -t nat -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment dnat \
                -m multiport --destination-ports 2290,2291 -j CNI-DN-0123456789abcdef
            iptables-nft -t nat -A CNI-DN-0123456789abcdef -p tcp -m tcp --dport 2290 \
                -j DNAT --to-destination 10.85.0.5:22
            iptables-nft -t nat -A CNI-DN-0123456789abcdef -p tcp -m tcp --dport 2291 \
                -j DNAT --to-destination 10.85.0.5:80"),
        &["tcp/2290 is translated to tcp/22 of 10.85.0.5"],
    ),
    (
        "others' ports",
        By::Nft("table ip t { chain c { type nat hook prerouting priority dstnat;
            tcp dport 8080 redirect to :80; udp dport 2222 redirect to :22; }
            chain o { type nat hook output priority -100; tcp dport 2222 redirect to :22; }; }"),
        &[],
    ),
];

#[test]
fn rules_that_open_what_is_protected_are_named() {
    for (name, rules, expected) in ROWS {
        net::test(|net| {
            rules.make(&net.server);
            let lines_about = lines_about(&net.server, ":");
            for expected in *expected {
                assert!(
                    lines_about.iter().any(|line| line.contains(expected)),
                    "{name}: no {expected:?} in {lines_about:#?}"
                );
            }
            assert_eq!(
                lines_about.len(),
                expected.len(),
                "{name}: {lines_about:#?}"
            );
        });
    }
}

#[test]
fn rules_that_cannot_be_read_are_reported() {
    net::test(|net| {
        let without = "for at in /usr/sbin /sbin; do mount --bind /dev/null $at/nft; done";
        assert_eq!(
            lines_about(&net.server, without),
            [] as [&str; 0],
            "there are none"
        );
        By::Nft("table ip t { }").make(&net.server);
        let lines_about = lines_about(&net.server, without);
        assert_eq!(lines_about.len(), 1, "{lines_about:#?}");
        for words in [
            "can't be read: rules of nftables: ",
            "/nft: permission denied",
        ] {
            assert!(
                lines_about.iter().all(|line| line.contains(words)),
                "{lines_about:#?}"
            );
        }
    });
}

/// As the unit runs it: nft gets the one capability that it needs.
#[test]
fn rules_are_read_without_root() {
    net::test(|net| {
        By::Nft(
            "table ip t { chain c { type nat hook prerouting priority dstnat;
            tcp dport 2222 redirect to :22; }; }",
        )
        .make(&net.server);
        let capabilities = "-all,+bpf,+net_admin,+perfmon";
        let file = config_file(format!("interfaces = [\"b0\"]\n{DOOR}").as_bytes());
        let everybody = fs::Permissions::from_mode(0o644);
        if let Err(error) = fs::set_permissions(file.path(), everybody) {
            panic!("{}: {error}", file.path().display());
        }
        for (name, capabilities, expected) in [
            (
                "with capabilities",
                capabilities,
                "tcp/2222 is translated to tcp/22",
            ),
            ("without", "-all", "can't be read: rules of nftables: "),
        ] {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.arg(format!("--inh-caps={capabilities}"));
            command.arg(format!("--ambient-caps={capabilities}"));
            command.arg(&binaries().user).args(["check", "--config"]);
            command.arg(file.path());
            let output = match net.server.enter(|| command.output()) {
                Ok(output) => text(&output),
                Err(error) => panic!("{name}: {error}"),
            };
            assert!(
                output.contains(expected),
                "{name}: no {expected:?} in {output}"
            );
        }
    });
}

/// Rules change while it runs: new ones cause a warning, and their ports are exempt as long as the rules exist.
#[test]
fn changed_rules_are_followed() {
    net::test(|net| {
        let daemon = Daemon::start(&net.server, DOOR);
        let opens = || {
            let other = net.new_source(Family::V4);
            other.knock("tcp/7000 tcp/2222 udp/8000 tcp/9000");
            let opened = json!({"event": "opened", "source": other.name()});
            let marker = net.new_source(Family::V4);
            daemon.catches_up(&marker, SSH);
            !daemon.events_like(&opened).is_empty()
        };
        assert!(!opens(), "nothing leads elsewhere");
        By::Nft(
            "table ip t { chain c { type nat hook prerouting priority dstnat;
            tcp dport 2222 redirect to :22; }; }",
        )
        .make(&net.server);
        wait::until("the warning", || {
            let lines = daemon.process().stderr();
            lines.contains("tcp/2222 is translated to tcp/22")
        });
        let instance = pins::instance(&net.server);
        let is_exempt = || {
            let map = MapData::from_pin(instance.ports()).unwrap();
            let table = Array::<_, Plain<PortRule>>::try_from(Map::Array(map)).unwrap();
            let Plain(rule) = table.get(&port_index(Protocol::Tcp, 2222), 0).unwrap();
            rule.kind() == PortKind::Exempt
        };
        wait::until("its port is exempt", is_exempt);
        assert!(opens(), "translated");
        net.server.run("nft", &["delete", "table", "ip", "t"]);
        wait::until("it no longer is", || !is_exempt());
        assert!(!opens(), "no longer translated");
        daemon.stop();
    });
}

/// The program that adds rules.
#[derive(Clone, Copy, Debug)]
enum By {
    /// nft, from a text.
    Nft(&'static str),
    /// These commands, one a line.
    Commands(&'static str),
}

impl By {
    fn make(self, namespace: &Namespace) {
        match self {
            Self::Nft(rules) => {
                let file = config_file(rules.as_bytes());
                namespace.run("nft", &["-f", &file.path().display().to_string()]);
            }
            Self::Commands(lines) => {
                for line in lines.lines() {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    if let [program, arguments @ ..] = words.as_slice() {
                        namespace.run(program, arguments);
                    }
                }
            }
        }
    }
}

/// Returns the output of `check` about translations, after `prepared` in a mount namespace of its own.
fn lines_about(namespace: &Namespace, prepared: &str) -> Vec<String> {
    let file = config_file(format!("interfaces = [\"b0\"]\n{DOOR}").as_bytes());
    let script = format!("{prepared}; exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        &script,
        "sh",
    ]);
    command.arg(&binaries().user);
    command.args(["check", "--config"]).arg(file.path());
    let output = match namespace.enter(|| command.output()) {
        Ok(output) => output,
        Err(error) => panic!("unshare: {error}"),
    };
    let lines_about = text(&output);
    assert_eq!(output.status.code(), Some(0), "{lines_about}");
    let about = |line: &&str| line.contains(" translated to ") || line.contains("translation");
    lines_about
        .lines()
        .filter(about)
        .map(str::to_owned)
        .collect()
}
