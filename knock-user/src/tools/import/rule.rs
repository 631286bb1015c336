//! Recognises commands of iptables, nft and ufw that open or close ports for one source.

use super::{helper, iptables, nft, rule_parts::Rule, ufw};

/// Returns the effect of a command on the interface where knocks arrive; `None` if it is unknown,
/// or if the command does more.
pub(super) fn rule(words: &[String], interface: &str) -> Option<Rule> {
    let mut words = words.iter().map(String::as_str);
    let mut program = words.next()?;
    if base(program) == "sudo" {
        program = words.next()?;
    }
    let words: Vec<&str> = words.collect();
    match base(program) {
        "iptables" | "ip6tables" | "iptables-nft" | "ip6tables-nft" | "iptables-legacy"
        | "ip6tables-legacy" => iptables::rule(&words, interface),
        "nft" => nft::rule(&words),
        "ufw" => ufw::rule(&words),
        name @ ("knock_add" | "knock_del" | "knock_helper_ipt.sh") => helper::rule(name, &words),
        _ => None,
    }
}

/// Returns whether a text contains the name of a firewall tool.
pub(super) fn is_mentioned(text: &str) -> bool {
    [
        "iptables",
        "ip6tables",
        "nft",
        "ufw",
        "firewall-cmd",
        "ipset",
        "iptables-legacy",
        "ip6tables-legacy",
        "knock_add",
        "knock_del",
        "csf",
        "shorewall",
    ]
    .iter()
    .any(|tool| {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
            .any(|word| word == *tool)
    })
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

#[cfg(test)]
mod tests {
    use knock_sequence::Ports;

    use super::*;
    use crate::tools::import::shell;

    /// Returns `open tcp/22`, or nothing.
    fn summary(line: &str) -> String {
        let commands = shell::commands(line).unwrap();
        let [command] = commands.as_slice() else {
            panic!("{line}: one command");
        };
        let (word, ports) = match rule(&command.words, "eth0") {
            None => return String::new(),
            Some(Rule::Open(ports)) => ("open", ports),
            Some(Rule::Close(ports)) => ("close", ports),
        };
        let ports: Vec<String> = ports.iter().map(Ports::to_string).collect();
        format!("{word} {}", ports.join(" "))
    }

    #[test]
    fn known_firewall_rules_are_recognised() {
        let rows = [
            (
                "/sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
                "open tcp/22",
            ),
            (
                "/sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
                "close tcp/22",
            ),
            (
                "sudo /usr/sbin/iptables -w 5 -I INPUT 1 -s %IP%/32 -p tcp -m tcp --dport ssh -j ACCEPT",
                "open tcp/22",
            ),
            (
                "ip6tables --insert INPUT --source %IP% --protocol udp --dport 60000:61000 --jump ACCEPT",
                "open udp/60000-61000",
            ),
            (
                "iptables -t filter -I INPUT -p tcp -m multiport --dports 80,443 -s %IP% -j ACCEPT",
                "open tcp/80 tcp/443",
            ),
            (
                "iptables -I INPUT -s %IP% -p tcp -m state --state NEW,ESTABLISHED --dport 22 -m comment --comment 'by knockd' -j ACCEPT",
                "open tcp/22",
            ),
            (
                "iptables -I KNOCKED -s %IP% -p tcp --syn --dport 22 -j ACCEPT",
                "open tcp/22",
            ),
            (
                "iptables -A INPUT -i eth0 -s %IP% -p tcp --dport 22 -j ACCEPT",
                "open tcp/22",
            ),
            (
                "nft add rule inet filter input ip saddr %IP% tcp dport 22 accept",
                "open tcp/22",
            ),
            (
                "nft insert rule inet filter input position 0 ip6 saddr %IP% tcp dport { 22, 8000-8010 } ct state new counter accept",
                "open tcp/22 tcp/8000-8010",
            ),
            (
                "nft 'add rule filter INPUT ip saddr %IP% udp dport 51820 accept comment x'",
                "open udp/51820",
            ),
            (
                "nft delete rule inet filter input ip saddr %IP% tcp dport 22 accept",
                "close tcp/22",
            ),
            (
                "ufw allow from %IP% to any port 22 proto tcp",
                "open tcp/22",
            ),
            (
                "/usr/sbin/ufw insert 1 allow in proto tcp from %IP% to any port 22,80 comment 'knock'",
                "open tcp/22 tcp/80",
            ),
            ("ufw allow from %IP% to any port 22", "open tcp/22 udp/22"),
            (
                "ufw --force delete allow from %IP% to any port 22 proto tcp",
                "close tcp/22",
            ),
        ];
        for (line, expected) in rows {
            assert_eq!(summary(line), expected, "{line}");
        }
    }

    #[test]
    fn other_commands_are_not_taken_for_rules() {
        let rows = [
            ("another program", "/usr/bin/logger %IP%"),
            (
                "every source",
                "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
            ),
            (
                "not this source",
                "iptables -A INPUT ! -s %IP% -p tcp --dport 22 -j ACCEPT",
            ),
            (
                "a network",
                "iptables -A INPUT -s %IP%/24 -p tcp --dport 22 -j ACCEPT",
            ),
            ("all ports", "iptables -A INPUT -s %IP% -j ACCEPT"),
            (
                "all protocols",
                "iptables -A INPUT -s %IP% --dport 22 -j ACCEPT",
            ),
            (
                "another target",
                "iptables -A INPUT -s %IP% -p tcp --dport 22 -j DROP",
            ),
            ("no target", "iptables -A INPUT -s %IP% -p tcp --dport 22"),
            (
                "not the port",
                "iptables -A INPUT -s %IP% -p tcp ! --dport 22 -j ACCEPT",
            ),
            (
                "what is forwarded",
                "iptables -A FORWARD -s %IP% -p tcp --dport 22 -j ACCEPT",
            ),
            (
                "what is forwarded to a container",
                "iptables -I DOCKER-USER -s %IP% -p tcp --dport 22 -j ACCEPT",
            ),
            (
                "what is forwarded, in another chain",
                "iptables -I forwarding_rule -s %IP% -p tcp --dport 22 -j ACCEPT",
            ),
            (
                "address translation",
                "iptables -t nat -A PREROUTING -s %IP% -p tcp --dport 22 -j ACCEPT",
            ),
            (
                "a limit",
                "iptables -A INPUT -s %IP% -p tcp --dport 22 -m limit --limit 1/s -j ACCEPT",
            ),
            ("no chain", "iptables -s %IP% -p tcp --dport 22 -j ACCEPT"),
            (
                "port 0",
                "iptables -A INPUT -s %IP% -p tcp --dport 0 -j ACCEPT",
            ),
            (
                "backwards",
                "iptables -A INPUT -s %IP% -p tcp --dport 9:8 -j ACCEPT",
            ),
            (
                "a service that only the host knows",
                "iptables -A INPUT -s %IP% -p tcp --dport x11 -j ACCEPT",
            ),
            (
                "another interface",
                "iptables -A INPUT -i wg0 -s %IP% -p tcp --dport 22 -j ACCEPT",
            ),
            ("cut off", "iptables -A INPUT -s"),
            (
                "an element of a set",
                "nft add element inet filter knocked \\{ %IP% \\}",
            ),
            (
                "every source, nft",
                "nft add rule inet filter input tcp dport 22 accept",
            ),
            (
                "refused",
                "nft add rule inet filter input ip saddr %IP% tcp dport 22 drop",
            ),
            (
                "a rule by its number",
                "nft delete rule inet filter input handle 5",
            ),
            ("an application", "ufw allow from %IP% to any app OpenSSH"),
            ("forbidden", "ufw deny from %IP% to any port 22"),
            ("every source, ufw", "ufw allow 22/tcp"),
        ];
        for (name, line) in rows {
            assert_eq!(summary(line), "", "{name}: {line}");
        }
    }

    #[test]
    fn firewall_tools_are_found_in_scripts() {
        for (text, is_there) in [
            ("a | /sbin/iptables -L", true),
            ("nft -a list", true),
            ("(ufw status)", true),
            ("echo shuftw", false),
            ("/usr/local/bin/my-ufw x", false),
        ] {
            assert_eq!(is_mentioned(text), is_there, "{text}");
        }
    }
}
