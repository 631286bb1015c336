//! Formats words and numbers for messages.

/// Formats a list of ports.
pub fn list(ports: &[String]) -> String {
    match ports {
        [] => "nothing".to_owned(),
        ports => ports.join(", "),
    }
}

/// Returns the verb that agrees with [`list`] of these ports: a range is plural.
pub fn verb<'v>(ports: &[String], one: &'v str, many: &'v str) -> &'v str {
    match ports {
        [] => one,
        [only] if !only.contains('-') => one,
        [..] => many,
    }
}

/// Returns a reason for a sentence that already has the name of its subject, which the reason
/// begins with: `it has no Ethernet frames`.
pub fn about(name: &str, because: &str) -> String {
    match because.strip_prefix(name) {
        Some(rest) if rest.starts_with(' ') => format!("it{rest}"),
        Some(_) | None => because.to_owned(),
    }
}

/// Formats a count with its noun: `1 door`, `2 doors`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_agree() {
        for (ports, expected) in [
            (&[][..], "nothing is"),
            (&["tcp/22"], "tcp/22 is"),
            (&["tcp/22-23"], "tcp/22-23 are"),
            (&["tcp/22", "udp/53"], "tcp/22, udp/53 are"),
        ] {
            let ports: Vec<_> = ports.iter().map(|&port| port.to_owned()).collect();
            let text = format!("{} {}", list(&ports), verb(&ports, "is", "are"));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_name_is_written_once() {
        for (name, because, text) in [
            (
                "tun0",
                "tun0 has no Ethernet frames",
                "it has no Ethernet frames",
            ),
            (
                "eth",
                "eth0 has no Ethernet frames",
                "eth0 has no Ethernet frames",
            ),
            (
                "tun0",
                "there is no such interface",
                "there is no such interface",
            ),
        ] {
            assert_eq!(about(name, because), text, "{because}");
        }
    }
}
