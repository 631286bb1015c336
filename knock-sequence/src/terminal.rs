//! Makes text from files, the network and other processes safe for a terminal.

use std::borrow::Cow;

/// Escapes characters that move the cursor of a terminal, end the line or change the text
/// direction.
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

/// Escapes such characters in each of several lines.
pub fn harmless_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(harmless).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(harmless_lines("a\u{1b}\nb\n"), "a\\u{1b}\nb\n");
    }
}
