//! Makes text from files, command lines, the network and other processes safe for a terminal.

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

/// Returns whether [`harmless`] escapes a character.
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Escapes such characters in each of several lines.
pub fn harmless_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(harmless).collect();
    lines.join("\n")
}

/// Escapes such characters in a text that repeats words of a command line, also line ends that are part of a word, and
/// removes the colours of the text itself.
pub fn harmless_with_words(text: &str, words: impl IntoIterator<Item = String>) -> String {
    let mut text = text.to_owned();
    for word in words {
        let value = word.split_once('=').map(|(_, value)| value);
        for part in [Some(word.as_str()), value].into_iter().flatten() {
            if let Cow::Owned(safe) = harmless(part) {
                text = text.replace(part, &safe);
            }
        }
    }
    harmless_lines(&without_colours(&text))
}

/// Removes the sequences that select a colour, such as `ESC [ 1 m`.
fn without_colours(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match rest.strip_prefix('m') {
            Some(rest) => plain.push_str(rest),
            None => plain.extend(["\u{1b}[", piece]),
        }
    }
    plain
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
    #[test]
    fn words_of_a_command_line_do_not_end_a_line() {
        for (name, words, text, safe) in [
            (
                "plain",
                &["ssh"][..],
                "no host ssh\ntry --help",
                "no host ssh\ntry --help",
            ),
            ("a line end", &["a\nb"], "no host a\nb\n", "no host a\\nb\n"),
            (
                "a value",
                &["--file=a\nb"],
                "no file 'a\nb'\n",
                "no file 'a\\nb'\n",
            ),
            (
                "other words",
                &["a", "b\u{1b}"],
                "a b\u{1b} c\u{7}",
                "a b\\u{1b} c\\u{7}",
            ),
        ] {
            let words = words.iter().map(|word| (*word).to_owned());
            assert_eq!(harmless_with_words(text, words), safe, "{name}");
        }
    }
}
