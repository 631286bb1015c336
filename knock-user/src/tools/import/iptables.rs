//! Recognises commands of iptables.

use super::rule_parts::{Match, Rule, is_input, is_source, protocol};

/// Parses `iptables -I INPUT 1 -s %IP% -p tcp --dport 22 -j ACCEPT`.
pub(super) fn rule(words: &[&str], interface: &str) -> Option<Rule> {
    let mut found = Match::default();
    let mut opens = None;
    let mut accepts = false;
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        match word {
            "-A" | "--append" | "-I" | "--insert" => {
                is_input(words.next()?).then_some(())?;
                // The position in the chain.
                let _place = words.next_if(|next| next.parse::<u32>().is_ok());
                opens.replace(true).is_none().then_some(())?;
            }
            "-D" | "--delete" => {
                is_input(words.next()?).then_some(())?;
                opens.replace(false).is_none().then_some(())?;
            }
            "-s" | "--source" | "--src" => found.is_for_source = is_source(words.next()?),
            "-p" | "--protocol" | "--proto" => found.protocols = vec![protocol(words.next()?)?],
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                found.ports.replace(words.next()?).is_none().then_some(())?;
            }
            "-j" | "--jump" => accepts = words.next()? == "ACCEPT",
            "-i" | "--in-interface" => (words.next()? == interface).then_some(())?,
            "-t" | "--table" => (words.next()? == "filter").then_some(())?,
            "-m" | "--match" => matches!(
                words.next()?,
                "tcp" | "udp" | "state" | "conntrack" | "comment" | "multiport"
            )
            .then_some(())?,
            "--state" | "--ctstate" => words
                .next()?
                .split(',')
                .any(|state| state == "NEW")
                .then_some(())?,
            "--comment" => _ = words.next()?,
            "-w" | "--wait" => _ = words.next_if(|next| next.parse::<u32>().is_ok()),
            "--syn" | "-4" | "-6" | "--ipv4" | "--ipv6" => {}
            _ => return None,
        }
    }
    let ports = found.ports().filter(|_| accepts)?;
    Some(if opens? {
        Rule::Open(ports)
    } else {
        Rule::Close(ports)
    })
}
