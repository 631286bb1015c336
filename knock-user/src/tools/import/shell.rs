//! Parses the part of the shell's language that is needed to recognise commands.

/// A command of a line, and the operator that joins it to the previous one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SimpleCommand<'t> {
    pub(super) words: Vec<String>,
    /// The text in the file.
    pub(super) text: &'t str,
    /// It runs only if the previous one has succeeded: `&&` and not `;`.
    pub(super) needs_success: bool,
}

/// Characters that make a line more than a list of commands.
const SPECIAL: &str = "|&<>()$`*?[]{}~#\n";

/// Returns the commands of a line, or `None` if it is more than a list of commands.
pub(super) fn commands(line: &str) -> Option<Vec<SimpleCommand<'_>>> {
    let mut commands = Vec::new();
    let mut words = Words::default();
    let mut start = 0;
    let mut needs_success = false;
    let mut chars = line.char_indices().peekable();
    while let Some((at, character)) = chars.next() {
        match character {
            ';' => {
                commands.push(words.simple(line.get(start..at)?, needs_success)?);
                (start, needs_success) = (at + 1, false);
            }
            '&' => {
                chars.next_if(|&(_, next)| next == '&')?;
                commands.push(words.simple(line.get(start..at)?, needs_success)?);
                (start, needs_success) = (at + 2, true);
            }
            '\'' => words.quoted(&mut chars, '\'')?,
            '"' => words.quoted(&mut chars, '"')?,
            '\\' => words.push(chars.next()?.1),
            blank if blank.is_ascii_whitespace() && blank != '\n' => words.end(),
            // nft's sets: a brace that stands alone is a word like others.
            '{' | '}' if words.is_between() && stands_alone(line, at) => {
                words.push(character);
            }
            special if SPECIAL.contains(special) => return None,
            other => words.push(other),
        }
    }
    let rest = line.get(start..)?;
    // A semicolon may end the last command.
    if !(rest.trim().is_empty() && !commands.is_empty() && !needs_success) {
        commands.push(words.simple(rest, needs_success)?);
    }
    Some(commands)
}

fn stands_alone(line: &str, at: usize) -> bool {
    let after = line.get(at + 1..).and_then(|rest| rest.chars().next());
    // As the first word of a command, a brace would begin a block.
    let before = line.get(..at).unwrap_or_default().trim_end();
    let begins = before.is_empty() || before.ends_with([';', '&']);
    after.is_none_or(|next| next.is_ascii_whitespace()) && !begins
}

/// The words of the command that is being read.
#[derive(Debug, Default)]
struct Words {
    ended: Vec<String>,
    current: Option<String>,
}

impl Words {
    fn push(&mut self, character: char) {
        self.current.get_or_insert_default().push(character);
    }

    fn is_between(&self) -> bool {
        self.current.is_none()
    }

    fn end(&mut self) {
        self.ended.extend(self.current.take());
    }

    fn quoted(
        &mut self,
        chars: &mut impl Iterator<Item = (usize, char)>,
        quote: char,
    ) -> Option<()> {
        self.current.get_or_insert_default();
        loop {
            match chars.next()?.1 {
                end if end == quote => return Some(()),
                '$' | '`' | '\\' if quote == '"' => return None,
                other => self.push(other),
            }
        }
    }

    /// Ends a command; the shell refuses an empty one.
    fn simple<'t>(&mut self, text: &'t str, needs_success: bool) -> Option<SimpleCommand<'t>> {
        self.end();
        let words = std::mem::take(&mut self.ended);
        let first = words.first()?;
        // An assignment or a keyword of the shell is more than a command.
        let is_plain = !first.contains('=') && !KEYWORDS.contains(&first.as_str());
        is_plain.then(|| SimpleCommand {
            words,
            text: text.trim(),
            needs_success,
        })
    }
}

const KEYWORDS: [&str; 17] = [
    "!", "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac",
    "exec", "exit", "cd", "return",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<Vec<String>>> {
        let commands = commands(line)?;
        Some(commands.into_iter().map(|simple| simple.words).collect())
    }

    #[test]
    fn a_list_of_commands_is_parsed_into_words() {
        let rows: [(&str, &str, &[&[&str]]); 9] = [
            ("one", "a b  c", &[&["a", "b", "c"]]),
            ("a semicolon", "a b;c", &[&["a", "b"], &["c"]]),
            ("at the end too", "a b ; ", &[&["a", "b"]]),
            ("and", "a b && c", &[&["a", "b"], &["c"]]),
            (
                "quotes",
                r#"a 'b c' "d;e" f'g'"h""#,
                &[&["a", "b c", "d;e", "fgh"]],
            ),
            ("an empty word", "a ''", &[&["a", ""]]),
            ("backslash", r"a b\ c \%IP%", &[&["a", "b c", "%IP%"]]),
            (
                "a set",
                "nft { 22, 80 } x",
                &[&["nft", "{", "22,", "80", "}", "x"]],
            ),
            ("not only ASCII", "a ü", &[&["a", "ü"]]),
        ];
        for (name, line, expected) in rows {
            let expected: Vec<Vec<String>> = expected
                .iter()
                .map(|words| words.iter().map(|&word| word.to_owned()).collect())
                .collect();
            assert_eq!(words(line), Some(expected), "{name}: {line}");
        }
    }

    #[test]
    fn a_line_that_is_more_than_a_list_of_commands_is_not_parsed() {
        let rows = [
            ("a pipe", "a | b"),
            ("or", "a || b"),
            ("background", "a &"),
            ("a file", "a > b"),
            ("a variable", "a $b"),
            ("a variable in quotes", "a \"$b\""),
            ("a command's output", "a `b`"),
            ("a pattern", "a *"),
            ("a comment", "a # b"),
            ("a block", "{ a; }"),
            ("the opposite", "! a"),
            ("a block after another command", "b; { a; }"),
            ("braces that are expanded", "a {b,c}"),
            ("a quote without an end", "a 'b"),
            ("a backslash at the end", "a \\"),
            ("nothing before the semicolon", "; a"),
            ("nothing after and", "a &&"),
            ("an assignment", "A=b c"),
            ("a condition", "if a; then b; fi"),
            ("nothing", ""),
        ];
        for (name, line) in rows {
            assert_eq!(words(line), None, "{name}: {line}");
        }
    }

    #[test]
    fn each_command_has_its_text_and_condition() {
        let commands = commands("a 1 && b; c").unwrap();
        let seen: Vec<_> = commands
            .iter()
            .map(|simple| (simple.text, simple.needs_success))
            .collect();
        assert_eq!(seen, [("a 1", false), ("b", true), ("c", false)]);
    }
}
