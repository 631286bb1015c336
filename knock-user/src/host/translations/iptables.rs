//! Parses rules of `iptables-save`.

use knock_common::packet::Protocol;

use super::{
    space::Space,
    walk::{RuleAction, RuleStep, TranslationRules},
};

/// The chains that packets from outside enter first.
const ENTRIES: [&str; 1] = ["PREROUTING"];

/// Adds the rules in the output of `iptables-save` for all tables; `program` names it.
pub(super) fn take(text: &str, program: &str, rules: &mut TranslationRules) {
    let mut table = "";
    let name = |table: &str, chain: &str| format!("chain {chain} of table {table} ({program})");
    for line in text.lines() {
        if let Some(begun) = line.strip_prefix('*') {
            table = begun.trim();
        } else if let Some(chain) = line.strip_prefix(':') {
            let chain = chain.split_whitespace().next().unwrap_or_default();
            if ENTRIES.contains(&chain) {
                rules.entries.push(name(table, chain));
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words: Vec<&str> = rule.split_whitespace().collect();
            let Some((chain, words)) = words.split_first() else {
                continue;
            };
            let steps = steps(words, |chain| name(table, chain));
            rules
                .chains
                .entry(name(table, chain))
                .or_default()
                .push(steps);
        }
    }
}

/// Parses `! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80`.
fn steps(words: &[&str], name: impl Fn(&str) -> String) -> Vec<RuleStep> {
    let mut steps = Vec::new();
    let value = |at: usize| words.get(at + 1).copied().unwrap_or_default();
    let option = |sought: &str| {
        let at = words.iter().position(|word| *word == sought)?;
        words.get(at + 1).copied()
    };
    for (at, word) in words.iter().enumerate() {
        let is_not = at > 0 && words.get(at - 1) == Some(&"!");
        let space = match *word {
            "-p" | "--protocol" => match value(at) {
                "tcp" | "6" => Space::of(Protocol::Tcp),
                "udp" | "17" => Space::of(Protocol::Udp),
                "all" | "0" => Space::all(),
                _ => Space::none(),
            },
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                match ranges(value(at)) {
                    Some(ranges) => Space::of_ports(ranges),
                    None => {
                        steps.push(RuleStep::Hidden);
                        continue;
                    }
                }
            }
            // This may concern the source port, or hide a port.
            "--ports" | "--port" | "--match-set" | "--mark" | "--u32" | "--bytecode" => {
                steps.push(RuleStep::Hidden);
                continue;
            }
            _ => continue,
        };
        let space = if is_not { space.inverted() } else { space };
        steps.push(RuleStep::Narrow(space));
    }
    let target = |text: Option<&str>| match text.and_then(target_of) {
        Some(act) => act,
        None => RuleAction::Unread,
    };
    let ports = |text: Option<&str>| match text.map(range) {
        Some(Some(port)) => RuleAction::Translate {
            to: None,
            port: Some(port),
        },
        Some(None) => RuleAction::Unread,
        // Without a port only the address changes.
        None => RuleAction::Translate {
            to: None,
            port: None,
        },
    };
    let act = match option("-j").or(option("--jump")) {
        Some("DNAT") => Some(target(option("--to-destination"))),
        Some("REDIRECT") => Some(ports(option("--to-ports"))),
        Some("TPROXY") => Some(ports(option("--on-port").filter(|port| *port != "0"))),
        Some("NETMAP") => Some(ports(None)),
        Some(chain) => Some(RuleAction::Follow(name(chain))),
        None => option("-g")
            .or(option("--goto"))
            .map(|chain| RuleAction::Follow(name(chain))),
    };
    steps.extend(act.map(RuleStep::Do));
    steps
}

/// Parses `80,443,8000:8010`.
fn ranges(text: &str) -> Option<Vec<(u16, u16)>> {
    text.split(',').map(range).collect()
}

/// Parses `80`, `8000:8010` or `6900-6910/6900`.
fn range(text: &str) -> Option<(u16, u16)> {
    let text = text.split('/').next()?;
    let (first, last) = text.split_once([':', '-']).unwrap_or((text, text));
    let last = if last.is_empty() { "65535" } else { last };
    let first = if first.is_empty() { "0" } else { first };
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Parses `10.88.0.2:80`, `10.88.0.2-10.88.0.9:80-90`, `[fd00::2]:80`, `fd00::2` or `:22`.
fn target_of(text: &str) -> Option<RuleAction> {
    let first = |address: &str| {
        let address = address.split('-').next()?;
        address.trim_matches(['[', ']']).parse().ok()
    };
    // An IPv6 address without brackets has no port.
    let is_bare = text.matches(':').count() > 1 && !text.starts_with('[');
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) if !is_bare && !port.ends_with(']') => (address, Some(port)),
        Some(_) | None => (text, None),
    };
    let to = match address {
        "" => None,
        address => Some(first(address)?),
    };
    let port = match port {
        Some(port) => Some(range(port)?),
        None => None,
    };
    Some(RuleAction::Translate { to, port })
}
