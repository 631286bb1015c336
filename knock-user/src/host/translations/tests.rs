//! Tests that rules are read as translations.

use serde_json::{Value, json};

use super::{Reading, iptables, nft, walk::TranslationRules};

fn shown(reading: &Reading) -> Vec<String> {
    let translations = reading.translations.iter();
    let translations = translations.map(|translation| {
        let to = translation
            .to
            .map_or_else(|| "here".to_owned(), |to| to.to_string());
        match translation.port {
            None => format!("{} {to}", translation.from),
            Some((first, last)) if first == last => format!("{} {to} {first}", translation.from),
            Some((first, last)) => format!("{} {to} {first}-{last}", translation.from),
        }
    });
    let unread = reading.unread.iter().map(|unread| format!("? {unread}"));
    translations.chain(unread).collect()
}

fn followed(rules: &TranslationRules) -> Vec<String> {
    let mut reading = Reading::default();
    rules.follow(&mut reading);
    shown(&reading)
}

fn tcp_dport(right: Value) -> Value {
    json!({"match": {"op": "==", "left": dport("tcp"), "right": right}})
}

fn dport(protocol: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": "dport"}})
}

/// Rules of a chain that sees what comes in, and of one that it can jump to; `@m` is a map.
fn of_nft(hook: &str, rule: Value, below: Value) -> Vec<String> {
    let list = json!({"nftables": [
        {"chain": {"family": "ip", "table": "t", "name": "pre", "hook": hook}},
        {"chain": {"family": "ip", "table": "t", "name": "below"}},
        {"rule": {"family": "ip", "table": "t", "chain": "pre", "expr": rule}},
        {"rule": {"family": "ip", "table": "t", "chain": "below", "expr": below}},
    ]});
    let mut elements = |_: &str, _: &str, name: &str| match name {
        "m" => Some(vec![json!([8080, {"concat": ["10.0.0.2", 80]}])]),
        "s" => Some(vec![
            json!({"range": [100, 110]}),
            json!({"elem": {"val": 120}}),
        ]),
        _ => None,
    };
    let mut rules = TranslationRules::default();
    nft::take(&list, &mut elements, &mut rules);
    followed(&rules)
}

#[test]
fn rules_of_nft_are_followed_to_their_translations() {
    let redirect = || json!({"redirect": {"port": 22}});
    let pre = "chain pre of table ip t (nft)";
    let not_understood = format!("? {pre} translates ports in a way that is not understood");
    let elsewhere =
        format!("? {pre} translates ports that are chosen elsewhere, such as by a mark");
    let rows: Vec<(&str, Value, Vec<&str>)> = vec![
        (
            "one port",
            json!([tcp_dport(json!(8080)), {"dnat": {"addr": "10.88.0.2", "port": 80}}]),
            vec!["tcp/8080 10.88.0.2 80"],
        ),
        (
            "the same port",
            json!([tcp_dport(json!(80)), {"dnat": {"addr": "10.0.0.1"}}]),
            vec!["tcp/80 10.0.0.1"],
        ),
        (
            "a range to one",
            json!([tcp_dport(json!({"range": [8000, 8010]})), redirect()]),
            vec!["tcp/8000-8010 here 22"],
        ),
        (
            "a set",
            json!([
                tcp_dport(json!({"set": [80, {"range": [500, 510]}]})),
                redirect()
            ]),
            vec!["tcp/80 here 22", "tcp/500-510 here 22"],
        ),
        (
            "a named set",
            json!([tcp_dport(json!("@s")), redirect()]),
            vec!["tcp/100-110 here 22", "tcp/120 here 22"],
        ),
        (
            "a named set that can't be read",
            json!([tcp_dport(json!("@nothing")), redirect()]),
            vec![&elsewhere],
        ),
        (
            "a map",
            json!([{"dnat": {"addr": {"map": {"key": dport("tcp"), "data":
                {"set": [[180, {"concat": ["10.0.0.2", 80]}],
                         [{"range": [181, 183]}, {"concat": ["10.0.0.3", 81]}]]}}}}}]),
            vec!["tcp/180 10.0.0.2 80", "tcp/181-183 10.0.0.3 81"],
        ),
        (
            "a named map",
            json!([{"dnat": {"family": "ip", "addr":
                {"map": {"key": dport("tcp"), "data": "@m"}}}}]),
            vec!["tcp/8080 10.0.0.2 80"],
        ),
        (
            "a named map that can't be read",
            json!([{"dnat": {"addr": {"map": {"key": dport("tcp"), "data": "@nothing"}}}}]),
            vec![&not_understood],
        ),
        (
            "a map of ports",
            json!([{"redirect": {"port": {"map": {"key": dport("udp"), "data":
                {"set": [[{"range": [9000, 9010]}, 53]]}}}}}]),
            vec!["udp/9000-9010 here 53"],
        ),
        (
            "a map of keys with several parts",
            json!([{"dnat": {"addr": {"map": {"key": {"concat":
                [{"payload": {"protocol": "ip", "field": "daddr"}}, dport("tcp")]},
                "data": {"set": [[{"concat": ["192.0.2.1", 96]}, "fd00::1"]]}}}, "port": 22}}]),
            vec!["tcp/96 fd00::1 22"],
        ),
        (
            "a map of verdicts",
            json!([{"vmap": {"key": {"concat": [{"meta": {"key": "l4proto"}}, dport("th")]},
                "data": {"set": [[{"concat": [6, 81]}, {"jump": {"target": "below"}}],
                                 [{"concat": ["udp", 82]}, {"accept": null}]]}}}]),
            vec!["tcp/81 10.0.0.9 90"],
        ),
        (
            "a chain",
            json!([tcp_dport(json!(83)), {"goto": {"target": "below"}}]),
            vec!["tcp/83 10.0.0.9 90"],
        ),
        (
            "all but one",
            json!([{"match": {"op": "!=", "left": dport("tcp"), "right": 22}}, redirect()]),
            vec!["tcp/1-21 here 22", "tcp/23-65535 here 22"],
        ),
        (
            "from one on",
            json!([{"match": {"op": ">=", "left": dport("tcp"), "right": 60000}}, redirect()]),
            vec!["tcp/60000-65535 here 22"],
        ),
        (
            "both protocols",
            json!([{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}},
                              "right": {"set": [6, 17]}}},
                   {"match": {"op": "==", "left": dport("th"), "right": 53}},
                   {"redirect": {"port": 5353}}]),
            vec!["tcp/53 here 5353", "udp/53 here 5353"],
        ),
        (
            "a range of addresses and ports",
            json!([tcp_dport(json!(90)), {"dnat": {"addr": {"range": ["10.0.0.1", "10.0.0.4"]},
                                                     "port": {"range": [80, 90]}}}]),
            vec!["tcp/90 10.0.0.1 80-90"],
        ),
        (
            "chosen at random",
            json!([tcp_dport(json!(91)), {"dnat": {"addr": {"map": {
                "key": {"numgen": {"mode": "random", "mod": 2}},
                "data": {"set": [[0, "10.0.0.1"], [1, "10.0.0.2"]]}}}, "port": 80}}]),
            vec!["tcp/91 10.0.0.1 80", "tcp/91 10.0.0.2 80"],
        ),
        (
            "without a port",
            json!([tcp_dport(json!(403)), {"redirect": null}]),
            vec!["tcp/403 here"],
        ),
        (
            "a transparent proxy",
            json!([tcp_dport(json!(301)), {"tproxy": {"port": 22}}]),
            vec!["tcp/301 here 22"],
        ),
        (
            "written into the packet",
            json!([tcp_dport(json!(300)), {"mangle": {"key": dport("tcp"), "value": 22}}]),
            vec!["tcp/300 here 22"],
        ),
        (
            "another part of the packet",
            json!([tcp_dport(json!(300)),
                   {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}]),
            vec![],
        ),
        (
            "a part of the port",
            json!([{"match": {"op": "==", "left": {"&": [dport("tcp"), 65280]}, "right": 256}},
                   redirect()]),
            vec![&elsewhere],
        ),
        (
            "by a mark",
            json!([{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}},
                   redirect()]),
            vec![&elsewhere],
        ),
        (
            "a mark and a port",
            json!([{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}},
                   tcp_dport(json!(80)), redirect()]),
            vec!["tcp/80 here 22"],
        ),
        (
            "a port that is computed",
            json!([tcp_dport(json!(80)), {"redirect": {"port": {"numgen": {"mod": 7}}}}]),
            vec![&not_understood],
        ),
        (
            "no translation",
            json!([tcp_dport(json!(80)), {"accept": null}]),
            vec![],
        ),
        (
            "another protocol",
            json!([{"match": {"op": "==",
            "left": {"payload": {"protocol": "ip", "field": "protocol"}}, "right": 47}},
            {"dnat": {"addr": "10.0.0.1"}}]),
            vec![],
        ),
        ("nothing", json!([]), vec![]),
    ];
    let below = json!([{"dnat": {"addr": "10.0.0.9", "port": 90}}]);
    for (name, rule, expected) in rows {
        let found = of_nft("prerouting", rule.clone(), below.clone());
        assert_eq!(found, expected, "{name}");
        // What the host's own connections get is not what comes from outside.
        let found = of_nft("output", rule, below.clone());
        assert_eq!(found, [] as [&str; 0], "{name}");
    }
}

#[test]
fn chains_that_jump_to_themselves_are_reported() {
    let jump = json!([{"jump": {"target": "below"}}]);
    let found = of_nft("prerouting", jump.clone(), jump);
    assert_eq!(
        found,
        ["? chain below of table ip t (nft) nests more than 16 jumps"]
    );
}

#[test]
fn rules_of_iptables_are_followed_to_their_translations() {
    let rows: [(&str, &str, &[&str]); 16] = [
        (
            "docker",
            "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
            &["tcp/8080 172.17.0.2 80"],
        ),
        (
            "kubernetes",
            "-A PREROUTING -p tcp --dport 30080 -j KUBE-EXT\n\
             -A KUBE-EXT -j KUBE-SEP\n\
             -A KUBE-SEP -p tcp -m tcp -j DNAT --to-destination 10.244.0.5:80",
            &["tcp/30080 10.244.0.5 80"],
        ),
        (
            "a range as target",
            "-A PREROUTING -p udp -m udp --dport 69 -j DNAT --to-destination 10.0.0.1:6900-6910",
            &["udp/69 10.0.0.1 6900-6910"],
        ),
        (
            "a range with a base",
            "-A PREROUTING -p tcp --dport 5000:5100 -j DNAT --to-destination 10.0.0.1:1000-1100/5000",
            &["tcp/5000-5100 10.0.0.1 1000-1100"],
        ),
        (
            "several ports",
            "-A PREROUTING -p tcp -m multiport --dports 80,443,8000:8010 -j REDIRECT --to-ports 8443",
            &[
                "tcp/80 here 8443",
                "tcp/443 here 8443",
                "tcp/8000-8010 here 8443",
            ],
        ),
        (
            "an open range",
            "-A PREROUTING -p tcp --dport 60000: -j REDIRECT --to-ports 22",
            &["tcp/60000-65535 here 22"],
        ),
        (
            "all but one",
            "-A PREROUTING -p tcp ! --dport 22 -j REDIRECT --to-ports 22",
            &["tcp/1-21 here 22", "tcp/23-65535 here 22"],
        ),
        (
            "IPv6",
            "-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination [fd00::2]:8080",
            &["tcp/80 fd00::2 8080"],
        ),
        (
            "IPv6, and the same port",
            "-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination fd00::2",
            &["tcp/80 fd00::2"],
        ),
        (
            "a transparent proxy",
            "-A PREROUTING -p tcp --dport 80 -j TPROXY --on-port 3129 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1",
            &["tcp/80 here 3129"],
        ),
        (
            "by a mark",
            "-A PREROUTING -p tcp -m mark --mark 0x1 -j REDIRECT --to-ports 22",
            &[
                "? chain PREROUTING of table nat (test) translates ports that are chosen elsewhere, such as by a mark",
            ],
        ),
        (
            "the host's own connections",
            "-A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 22",
            &[],
        ),
        (
            "masquerading",
            "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE",
            &[],
        ),
        ("no rule", "", &[]),
        ("cut off", "-A PREROUTING -p tcp --dport", &[]),
        (
            "a target that is not an address",
            "-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination nonsense",
            &[
                "? chain PREROUTING of table nat (test) translates ports in a way that is not understood",
            ],
        ),
    ];
    for (name, lines, expected) in rows {
        let text = format!("*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n{lines}\nCOMMIT\n");
        let mut rules = TranslationRules::default();
        iptables::take(&text, "test", &mut rules);
        assert_eq!(followed(&rules), expected, "{name}");
    }
}
