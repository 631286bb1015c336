//! One-time files: marking a line changes nothing else, and marked lines stay marked.

use knock_sequence::one_time::{Book, Next};

/// Reads bytes as a file, and uses up its lines one after the other.
pub fn check(text: &[u8]) {
    let book = Book::new(text.to_vec());
    assert_eq!(book.text(), text);
    let mut sequences = book
        .unused()
        .map(|(_, knocks)| knocks.to_vec())
        .collect::<Vec<_>>();
    sequences.sort();
    assert!(
        sequences.windows(2).all(|pair| pair[0] != pair[1]),
        "a sequence would work twice: {text:?}"
    );
    check_flaws(&book);
    check_next(&book);
    let mut book = book;
    // Bounded: each round uses up a line.
    for _ in 0..=sequences.len() {
        let Some((line, knocks)) = book.unused().next() else {
            return;
        };
        assert_eq!(book.sequence(line), Some(knocks));
        assert!(!book.is_marked(line));
        book = use_up(&book, line);
    }
    panic!("lines that can't be used up: {text:?}");
}

/// Marks a line, and checks the file.
fn use_up(book: &Book, line: u32) -> Book {
    let Some(marked) = book.marked(line) else {
        panic!("line {line} can't be marked: {:?}", book.text());
    };
    assert_eq!(
        marked.marked(line),
        None,
        "marked twice: {:?}",
        marked.text()
    );
    assert!(marked.is_marked(line));
    // The file and the memory agree.
    let again = Book::new(marked.text().to_vec());
    let unused = |book: &Book| -> Vec<_> {
        let unused = book.unused();
        unused
            .map(|(line, knocks)| (line, knocks.to_vec()))
            .collect()
    };
    assert_eq!(unused(&again), unused(&marked), "{:?}", marked.text());
    assert!(again.is_marked(line), "{:?}", marked.text());
    // The lines behind it are as good as before, and only those.
    let rest: Vec<_> = unused(book)
        .into_iter()
        .filter(|(other, _)| *other > line)
        .collect();
    assert_eq!(unused(&marked), rest, "{:?}", book.text());
    assert_eq!(
        again.sequence(line),
        book.sequence(line),
        "{:?}",
        book.text()
    );
    only_marks(book.text(), marked.text());
    marked
}

/// Nothing but marks was added, and nothing but the blanks in their places removed.
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

fn check_flaws(book: &Book) {
    for flaw in book.flaws() {
        let is_used = book.unused().any(|(line, _)| line == flaw.line);
        assert!(
            !is_used,
            "line {} has a flaw and is used: {}",
            flaw.line, flaw.reason
        );
        crate::text::assert_harmless(flaw.reason);
    }
}

/// A client takes the line that the host takes, or stops at one that both leave out.
fn check_next(book: &Book) {
    let host = book.unused().next();
    match book.next() {
        Some(Next::Sequence(line, knocks)) => assert_eq!(host, Some((line, knocks))),
        Some(Next::Flawed(flaw)) => assert!(
            host.is_none_or(|(line, _)| flaw.line < line),
            "{flaw:?} is behind {host:?}"
        ),
        None => assert_eq!(host, None),
    }
}
