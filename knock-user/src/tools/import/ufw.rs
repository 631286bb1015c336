//! Recognises commands of ufw.

use knock_common::packet::Protocol;

use super::rule_parts::{Match, Rule, is_source, protocol};

/// Parses `ufw insert 1 allow from %IP% to any port 22 proto tcp`.
pub(super) fn rule(words: &[&str]) -> Option<Rule> {
    let mut opens = true;
    let mut is_allowed = false;
    let mut found = Match {
        protocols: vec![Protocol::Tcp, Protocol::Udp],
        ..Match::default()
    };
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        match word {
            "--force" | "prepend" | "in" | "rule" => {}
            "insert" => _ = words.next()?.parse::<u32>().ok()?,
            "delete" => opens = false,
            "allow" => is_allowed = true,
            "from" => found.is_for_source = is_source(words.next()?),
            "to" => (words.next()? == "any").then_some(())?,
            "port" => found.ports = Some(words.next()?),
            "proto" => found.protocols = vec![protocol(words.next()?)?],
            "comment" => _ = words.next()?,
            _ => return None,
        }
    }
    let ports = found.ports().filter(|_| is_allowed)?;
    Some(if opens {
        Rule::Open(ports)
    } else {
        Rule::Close(ports)
    })
}
