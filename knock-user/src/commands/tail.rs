//! Keeps the end of a command's output.

use std::collections::VecDeque;

use crate::model::terminal::harmless;

/// The number of octets that are kept.
const KEPT_BYTES: usize = 4_096;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    is_cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(KEPT_BYTES);
        self.is_cut |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    /// Returns the lines with control characters escaped; a line that was cut is left out, unless
    /// it is the only one.
    pub(super) fn lines(self) -> Vec<String> {
        let bytes: Vec<u8> = self.bytes.into();
        let text = String::from_utf8_lossy(&bytes);
        let text = match text.split_once('\n') {
            Some((_, rest)) if self.is_cut && !rest.trim().is_empty() => rest,
            _ => &text,
        };
        let lines = text.lines().map(str::trim_end);
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(|line| harmless(line).into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let long = "x".repeat(3 * KEPT_BYTES);
        let kept = "x".repeat(KEPT_BYTES);
        let flood = format!("{long}\nlast\n");
        for (name, printed, lines) in [
            ("nothing", "", vec![]),
            ("lines", "one\r\n\n two \n", vec!["one", " two"]),
            ("no line end", "one", vec!["one"]),
            ("flood", &flood, vec!["last"]),
            ("one long line", &long, vec![kept.as_str()]),
            (
                "control characters",
                "a\u{1b}[2Jb\tc",
                vec!["a\\u{1b}[2Jb\\tc"],
            ),
        ] {
            let mut tail = Tail::default();
            for chunk in printed.as_bytes().chunks(1000) {
                tail.push(chunk);
            }
            assert_eq!(tail.lines(), lines, "{name}");
        }
        let mut tail = Tail::default();
        tail.push(b"\xff\xfe");
        assert_eq!(tail.lines(), ["\u{fffd}\u{fffd}"], "not UTF-8");
    }
}
