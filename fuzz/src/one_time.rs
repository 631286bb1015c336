//! One-time files: marking a line changes nothing else, and marked lines stay marked.

use knock_sequence::one_time::{NextLine, OneTimeText};

/// Reads bytes as a file, and uses up its lines one after the other.
pub fn check(text: &[u8]) {
    let one_time_text = OneTimeText::new(text.to_vec());
    assert_eq!(one_time_text.text(), text);
    let mut sequences = one_time_text
        .unused()
        .map(|(_, knocks)| knocks.to_vec())
        .collect::<Vec<_>>();
    sequences.sort();
    assert!(
        sequences.windows(2).all(|pair| pair[0] != pair[1]),
        "a sequence would work twice: {text:?}"
    );
    check_flaws(&one_time_text);
    check_next(&one_time_text);
    let mut one_time_text = one_time_text;
    // Bounded: each round uses up a line.
    for _ in 0..=sequences.len() {
        let Some((line, knocks)) = one_time_text.unused().next() else {
            return;
        };
        assert_eq!(one_time_text.sequence(line), Some(knocks));
        assert!(!one_time_text.is_marked(line));
        one_time_text = use_up(&one_time_text, line);
    }
    panic!("lines that can't be used up: {text:?}");
}

/// Marks a line, and checks the file.
fn use_up(one_time_text: &OneTimeText, line: u32) -> OneTimeText {
    let Some(marked) = one_time_text.marked(line) else {
        panic!("line {line} can't be marked: {:?}", one_time_text.text());
    };
    assert_eq!(
        marked.marked(line),
        None,
        "marked twice: {:?}",
        marked.text()
    );
    assert!(marked.is_marked(line));
    // The file and the memory agree.
    let again = OneTimeText::new(marked.text().to_vec());
    let unused = |one_time_text: &OneTimeText| -> Vec<_> {
        let unused = one_time_text.unused();
        unused
            .map(|(line, knocks)| (line, knocks.to_vec()))
            .collect()
    };
    assert_eq!(unused(&again), unused(&marked), "{:?}", marked.text());
    assert!(again.is_marked(line), "{:?}", marked.text());
    // The lines behind it are as good as before, and only those.
    let rest: Vec<_> = unused(one_time_text)
        .into_iter()
        .filter(|(other, _)| *other > line)
        .collect();
    assert_eq!(unused(&marked), rest, "{:?}", one_time_text.text());
    assert_eq!(
        again.sequence(line),
        one_time_text.sequence(line),
        "{:?}",
        one_time_text.text()
    );
    only_marks(one_time_text.text(), marked.text());
    marked
}

/// Checks that nothing but marks was added, and nothing but the blanks in their places removed.
fn only_marks(before: &[u8], after: &[u8]) {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(|&byte| byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (before, after) = (lines(before), lines(after));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        let marked = after.strip_prefix(b"#").is_some_and(|rest| {
            let blank = before.strip_prefix(b" ").or(before.strip_prefix(b"\t"));
            rest == blank.unwrap_or(before)
        });
        assert!(before == after || marked, "{before:?} became {after:?}");
    }
}

fn check_flaws(one_time_text: &OneTimeText) {
    for flaw in one_time_text.flaws() {
        let is_used = one_time_text.unused().any(|(line, _)| line == flaw.line);
        assert!(
            !is_used,
            "line {} has a flaw and is used: {}",
            flaw.line, flaw.reason
        );
        crate::text::assert_harmless(flaw.reason);
    }
}

/// Checks that a client takes the line that the host takes, or stops at one that both leave out.
fn check_next(one_time_text: &OneTimeText) {
    let host = one_time_text.unused().next();
    match one_time_text.next() {
        Some(NextLine::Sequence(line, knocks)) => assert_eq!(host, Some((line, knocks))),
        Some(NextLine::Flawed(flaw)) => assert!(
            host.is_none_or(|(line, _)| flaw.line < line),
            "{flaw:?} is behind {host:?}"
        ),
        None => assert_eq!(host, None),
    }
}
