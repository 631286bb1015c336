//! Recognises `knock_add` and `knock_del`, knockd's own helper script.

use super::rule_parts::{Match, Rule, is_input, is_source, protocol};

/// Parses `knock_add -i -c INPUT -p tcp -d 443 -f %IP%`; `None` if it does something else.
pub(super) fn rule(program: &str, words: &[&str]) -> Option<Rule> {
    // Without a method `knock_add` adds nothing; under the other name it is for deleting.
    let mut opens = (program == "knock_del").then_some(false);
    let mut found = Match::for_tcp();
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let (option, mut value) = split(word)?;
        let mut value = || value.take().or_else(|| words.next());
        match option {
            'a' | 'i' => opens = Some(true),
            'x' => opens = Some(false),
            'f' => found.is_for_source = is_source(value()?),
            'd' => found.ports = Some(value()?),
            'p' => found.protocols = vec![protocol(&value()?.to_ascii_lowercase())?],
            'c' => is_input(value()?).then_some(())?,
            'm' | 'v' => {}
            _ => return None,
        }
    }
    let ports = found.ports()?;
    Some(if opens? {
        Rule::Open(ports)
    } else {
        Rule::Close(ports)
    })
}

/// Returns an option and the value that is joined to it.
fn split(word: &str) -> Option<(char, Option<&str>)> {
    const LONG: [(&str, char); 9] = [
        ("append", 'a'),
        ("insert", 'i'),
        ("delete", 'x'),
        ("srcaddr", 'f'),
        ("dstport", 'd'),
        ("proto", 'p'),
        ("chain", 'c'),
        ("comment", 'm'),
        ("verbose", 'v'),
    ];
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let (_, short) = LONG.iter().find(|(long, _)| *long == name)?;
        return Some((*short, value));
    }
    let mut rest = word.strip_prefix('-')?.chars();
    let option = rest.next()?;
    let joined = rest.as_str();
    let takes_value = "fdpcm".contains(option);
    // Joined options without a value are rare, and not recognised.
    (joined.is_empty() || takes_value).then_some((option, (!joined.is_empty()).then_some(joined)))
}

#[cfg(test)]
mod tests {
    use knock_sequence::Ports;

    use super::*;

    #[test]
    fn calls_of_the_helper_script_are_recognised() {
        let rows = [
            (
                "Debian's file",
                "knock_add -i -c INPUT -p tcp -d 443 -f %IP%",
                "open tcp/443",
            ),
            ("appended", "knock_add -a -f %IP% -d 22", "open tcp/22"),
            ("deleted", "knock_add -x -f %IP% -d 22", "close tcp/22"),
            (
                "its other name",
                "knock_del -c INPUT -p tcp -d 22 -f %IP%",
                "close tcp/22",
            ),
            (
                "its other name, with the option",
                "knock_del -x -d 22 -f %IP%",
                "close tcp/22",
            ),
            (
                "long options",
                "knock_add --insert --srcaddr=%IP% --dstport 53 --proto=udp",
                "open udp/53",
            ),
            (
                "joined values",
                "knock_add -i -f%IP% -d22 -mknock -v",
                "open tcp/22",
            ),
            ("a test run", "knock_add -t -i -f %IP% -d 22", ""),
            ("no method", "knock_add -f %IP% -d 22", ""),
            ("no source", "knock_add -i -d 22", ""),
            ("another source", "knock_add -i -f 192.0.2.1 -d 22", ""),
            (
                "what is forwarded",
                "knock_add -i -c FORWARD -f %IP% -d 22",
                "",
            ),
            ("no port", "knock_add -i -f %IP%", ""),
            ("another protocol", "knock_add -i -f %IP% -d 22 -p sctp", ""),
            ("a word too many", "knock_add -i -f %IP% -d 22 now", ""),
        ];
        for (name, line, expected) in rows {
            let words: Vec<&str> = line.split(' ').collect();
            let found = match rule(words[0], &words[1..]) {
                None => String::new(),
                Some(Rule::Open(ports)) => format!("open {}", shown(&ports)),
                Some(Rule::Close(ports)) => format!("close {}", shown(&ports)),
            };
            assert_eq!(found, expected, "{name}: {line}");
        }
    }

    fn shown(ports: &[Ports]) -> String {
        let words: Vec<String> = ports.iter().map(Ports::to_string).collect();
        words.join(" ")
    }
}
