//! Ports that this host translates to others: rules of nftables and iptables.

use std::{fs, net::IpAddr, process::Command};

use knock_common::packet::Protocol;
use knock_sequence::Knock;

/// Names of the tables that iptables-legacy has.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";

/// What comes to a port goes to another.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Translation {
    /// The port to which others connect.
    pub from: Knock,
    /// The address that gets the packets, if it is another.
    pub to: Option<IpAddr>,
    /// The port there.
    pub port: u16,
}

/// The translations of this network namespace, as far as they can be read: it takes root and the
/// programs `nft` and `iptables-save`.
pub fn translations() -> Vec<Translation> {
    let rules = output("nft", &["-t", "-n", "list", "ruleset"]).unwrap_or_default();
    let mut found: Vec<Translation> = rules.lines().flat_map(of_nft).collect();
    let is_legacy = fs::read_to_string(LEGACY_TABLES).is_ok_and(|names| names.contains("nat"));
    // Asking iptables-save where there is nothing would make legacy tables.
    if is_legacy || rules.contains("xt target") {
        for program in ["iptables-save", "ip6tables-save"] {
            let rules = output(program, &["-t", "nat"]).unwrap_or_default();
            found.extend(rules.lines().flat_map(of_iptables));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let path = ["/usr/sbin", "/sbin", "/usr/bin"].iter();
    let mut path = path.map(|directory| format!("{directory}/{program}"));
    let path = path.find(|path| fs::exists(path).unwrap_or(false))?;
    let output = Command::new(path).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

/// `tcp dport 8080 counter packets 0 bytes 0 dnat ip to 10.88.0.2:80`.
fn of_nft(line: &str) -> Vec<Translation> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |sought: &[&str]| {
        let place = words
            .windows(sought.len())
            .position(|some| some == sought)?;
        words.get(place + sought.len()..)
    };
    let of = |protocol: Protocol| {
        let ports = after(&[protocol.name(), "dport"])?;
        let ports = set(ports);
        let target = match after(&["dnat"]).or_else(|| after(&["redirect"]))? {
            ["ip" | "ip6" | "inet", "to", target, ..] | ["to", target, ..] => target,
            _ => return None,
        };
        let (to, port) = target_of(target)?;
        Some(pairs(protocol, &ports, to, port))
    };
    let both = [Protocol::Tcp, Protocol::Udp].into_iter();
    both.filter_map(of).flatten().collect()
}

/// `8080`, or `{ 80, 443 }`; ranges are left out, since they are mostly kept.
fn set(words: &[&str]) -> Vec<u16> {
    let items: Vec<&str> = match words.split_first() {
        Some((&"{", rest)) => rest
            .iter()
            .take_while(|word| **word != "}")
            .copied()
            .collect(),
        Some((first, _)) => vec![*first],
        None => Vec::new(),
    };
    let numbers = items.iter().map(|item| item.trim_end_matches(','));
    numbers.filter_map(|item| item.parse().ok()).collect()
}

/// `-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80`.
fn of_iptables(line: &str) -> Vec<Translation> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = |names: &[&str]| {
        let place = words.iter().position(|word| names.contains(word))?;
        words.get(place + 1).copied()
    };
    let read = || {
        let protocol = match value(&["-p", "--protocol"])? {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let ports = value(&["--dport", "--dports"])?;
        let ports: Vec<u16> = ports
            .split(',')
            .filter_map(|port| port.parse().ok())
            .collect();
        let (to, port) = match value(&["-j", "--jump"])? {
            "DNAT" => target_of(value(&["--to-destination"])?)?,
            "REDIRECT" => (None, first_port(value(&["--to-ports"])?)?),
            _ => return None,
        };
        Some(pairs(protocol, &ports, to, port))
    };
    read().unwrap_or_default()
}

fn pairs(protocol: Protocol, ports: &[u16], to: Option<IpAddr>, port: u16) -> Vec<Translation> {
    let from = ports.iter().map(|&from| Knock {
        protocol,
        port: from,
    });
    from.map(|from| Translation { from, to, port }).collect()
}

/// `10.88.0.2:80`, `[fd00::2]:80` or `:22`.
fn target_of(text: &str) -> Option<(Option<IpAddr>, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let to = match address {
        "" => None,
        address => Some(address.parse().ok()?),
    };
    Some((to, first_port(port)?))
}

fn first_port(text: &str) -> Option<u16> {
    text.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(found: &[Translation]) -> Vec<String> {
        let told = found.iter().map(|Translation { from, to, port }| match to {
            Some(to) => format!("{from} {to} {port}"),
            None => format!("{from} here {port}"),
        });
        told.collect()
    }

    #[test]
    fn rules_of_nft() {
        let rows: [(&str, &str, &[&str]); 8] = [
            (
                "netavark",
                "ip daddr 192.0.2.1 tcp dport 8080 dnat ip to 10.88.0.2:80",
                &["tcp/8080 10.88.0.2 80"],
            ),
            (
                "a counter",
                "tcp dport 8080 counter packets 1 bytes 60 dnat to 172.17.0.2:80",
                &["tcp/8080 172.17.0.2 80"],
            ),
            (
                "IPv6",
                "udp dport 53 dnat ip6 to [fd00::2]:5353",
                &["udp/53 fd00::2 5353"],
            ),
            (
                "to a port of this host",
                "tcp dport 2222 redirect to :22",
                &["tcp/2222 here 22"],
            ),
            (
                "several ports",
                "tcp dport { 80, 443 } dnat to 10.0.0.1:8443",
                &["tcp/80 10.0.0.1 8443", "tcp/443 10.0.0.1 8443"],
            ),
            ("the same port", "tcp dport 80 dnat to 10.0.0.1", &[]),
            ("no translation", "tcp dport 80 accept", &[]),
            ("nothing", "", &[]),
        ];
        for (name, line, expected) in rows {
            assert_eq!(told(&of_nft(line)), expected, "{name}");
        }
    }

    #[test]
    fn rules_of_iptables() {
        let rows: [(&str, &str, &[&str]); 6] = [
            (
                "docker",
                "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
                &["tcp/8080 172.17.0.2 80"],
            ),
            (
                "a range as target",
                "-A PREROUTING -p udp -m udp --dport 69 -j DNAT --to-destination 10.0.0.1:6900-6910",
                &["udp/69 10.0.0.1 6900"],
            ),
            (
                "several ports",
                "-A PREROUTING -p tcp -m multiport --dports 80,443 -j REDIRECT --to-ports 8443",
                &["tcp/80 here 8443", "tcp/443 here 8443"],
            ),
            (
                "masquerading",
                "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE",
                &[],
            ),
            ("a chain", ":PREROUTING ACCEPT [0:0]", &[]),
            ("cut off", "-A PREROUTING -p tcp --dport", &[]),
        ];
        for (name, line, expected) in rows {
            assert_eq!(told(&of_iptables(line)), expected, "{name}");
        }
    }
}
