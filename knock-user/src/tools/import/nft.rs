//! Recognises commands of nft.

use super::rule_parts::{Match, Rule, is_input, is_source, protocol};

/// Parses `nft add rule inet filter input ip saddr %IP% tcp dport 22 accept`.
pub(super) fn rule(words: &[&str]) -> Option<Rule> {
    let words: Vec<&str> = words
        .iter()
        .flat_map(|word| word.split_whitespace())
        .collect();
    let mut words = words.as_slice();
    let opens = match words {
        ["add" | "insert", "rule", rest @ ..] => {
            words = rest;
            true
        }
        ["delete", "rule", rest @ ..] => {
            words = rest;
            false
        }
        _ => return None,
    };
    if let ["inet" | "ip" | "ip6", rest @ ..] = words {
        words = rest;
    }
    let [_table, chain, rest @ ..] = words else {
        return None;
    };
    is_input(&chain.to_ascii_uppercase()).then_some(())?;
    words = rest;
    if let ["position" | "index", _, rest @ ..] = words {
        words = rest;
    }
    let mut found = Match::default();
    let mut set = String::new();
    let mut accepts = false;
    while let Some((&word, rest)) = words.split_first() {
        words = rest;
        match word {
            _ if accepts && word != "comment" => return None,
            "ip" | "ip6" => {
                let ["saddr", source, rest @ ..] = words else {
                    return None;
                };
                found.is_for_source = is_source(source);
                words = rest;
            }
            "tcp" | "udp" => {
                let ["dport", rest @ ..] = words else {
                    return None;
                };
                set.is_empty().then_some(())?;
                found.protocols = vec![protocol(word)?];
                (set, words) = nft_set(rest)?;
            }
            "ct" => {
                let ["state", states, rest @ ..] = words else {
                    return None;
                };
                states
                    .split(',')
                    .any(|state| state == "new")
                    .then_some(())?;
                words = rest;
            }
            "counter" => {}
            "accept" => accepts = true,
            "comment" => words = words.get(1..)?,
            _ => return None,
        }
    }
    found.ports = Some(&set);
    let ports = found.ports().filter(|_| accepts)?;
    Some(if opens {
        Rule::Open(ports)
    } else {
        Rule::Close(ports)
    })
}

/// Parses `22`, `60000-61000` or `{ 22, 80 }`, with commas and without blanks.
fn nft_set<'w, 's>(words: &'s [&'w str]) -> Option<(String, &'s [&'w str])> {
    let (&first, rest) = words.split_first()?;
    if !first.starts_with('{') {
        return Some((first.to_owned(), rest));
    }
    let end = words.iter().position(|word| word.ends_with('}'))?;
    let (set, rest) = words.split_at(end + 1);
    let set = set.concat();
    Some((set.trim_matches(['{', '}']).to_owned(), rest))
}
