//! Words and numbers as people read them.

use std::borrow::Cow;

/// `text` without anything that moves a terminal's cursor, ends the line or turns its direction.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_harmful(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Ports as people read them.
pub fn list(ports: &[String]) -> String {
    match ports {
        [] => "nothing".to_owned(),
        ports => ports.join(", "),
    }
}

/// The verb that agrees with [`list`] of these ports: a range is several.
pub fn verb<'v>(ports: &[String], one: &'v str, many: &'v str) -> &'v str {
    match ports {
        [] => one,
        [only] if !only.contains('-') => one,
        [..] => many,
    }
}

/// `1 door`, `2 doors`.
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
            let told = format!("{} {}", list(&ports), verb(&ports, "is", "are"));
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn text_does_nothing_to_a_terminal() {
        for (name, text, safe) in [
            ("plain", "ssh", "ssh"),
            ("other letters", "Tür 門", "Tür 門"),
            ("escape sequence", "\u{1b}[2J", "\\u{1b}[2J"),
            ("line ends", "a\r\nb", "a\\r\\nb"),
            ("C1 control", "\u{9b}31m", "\\u{9b}31m"),
            ("right to left", "a\u{202e}b", "a\\u{202e}b"),
            ("line separator", "a\u{2028}b", "a\\u{2028}b"),
            ("no width", "a\u{200b}b", "a\\u{200b}b"),
        ] {
            assert_eq!(harmless(text), safe, "{name}");
        }
    }
}
