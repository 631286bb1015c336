//! The lines of a one-time file, and what a mark changes in them.

use knock_sequence::{
    Knock,
    one_time::{NextLine, OneTimeText},
};
use proptest::prelude::*;

/// Name, file, sequences, flaws.
type LineRow<'a> = (&'a str, &'a [u8], &'a [&'a str], &'a [&'a str]);

/// Name, file, line, the file with the mark.
type MarkRow<'a> = (&'a str, &'a [u8], u32, Option<&'a [u8]>);

#[test]
fn each_line_is_a_sequence_a_comment_or_a_flaw() {
    let long = format!(" {}7000\n", "7000,".repeat(128));
    let rows: [LineRow<'_>; 20] = [
        ("nothing", b"", &[], &[]),
        (
            "knockd's form",
            b" 7000:tcp,8000:udp,9000\n",
            &["1: tcp/7000 udp/8000 tcp/9000"],
            &[],
        ),
        (
            "ours",
            b"tcp/7000 udp/8000\n",
            &["1: tcp/7000 udp/8000"],
            &[],
        ),
        ("capitals", b" 7000:UDP\n", &["1: udp/7000"], &[]),
        (
            "blanks, comments, used ones",
            b"# mine\n\n  \n #7000\n#8000,9000\n 9000\n",
            &["6: tcp/9000"],
            &[],
        ),
        (
            "Windows line ends",
            b" 7000\r\n 8000\r\n",
            &["1: tcp/7000", "2: tcp/8000"],
            &[],
        ),
        (
            "port 0",
            b" 0,8000\n 9000\n",
            &["2: tcp/9000"],
            &["1: \"0\" names the port \"0\": a port is a whole number from 1 to 65535"],
        ),
        (
            "a port too high",
            b" 70000\n",
            &[],
            &["1: \"70000\" names the port \"70000\": a port is a whole number from 1 to 65535"],
        ),
        (
            "an unknown protocol",
            b" 7000:icmp\n",
            &[],
            &["1: \"7000:icmp\" names the protocol \"icmp\": write tcp/PORT or udp/PORT"],
        ),
        (
            "no port",
            b" :tcp\n",
            &[],
            &["1: \":tcp\" is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000"],
        ),
        (
            "a sign",
            b" -1,7000\n",
            &[],
            &["1: \"-1\" is not a knock: write tcp/PORT or udp/PORT, such as tcp/7000"],
        ),
        (
            "an empty item",
            b" 7000,,8000\n",
            &[],
            &["1: nothing stands where a knock belongs, beside a comma"],
        ),
        (
            "a comma at the end",
            b" 7000,\n",
            &[],
            &["1: nothing stands where a knock belongs, beside a comma"],
        ),
        (
            "too many knocks",
            long.as_bytes(),
            &[],
            &["1: 129 knocks: a sequence has at most 128"],
        ),
        (
            "not UTF-8",
            b" 7000\xff\n 9000\n",
            &["2: tcp/9000"],
            &["1: not a text in UTF-8"],
        ),
        (
            "a comment that is not UTF-8",
            b"#\xff\n 9000\n",
            &["2: tcp/9000"],
            &[],
        ),
        (
            "cut off",
            b" 7000\n 8000,90",
            &["1: tcp/7000"],
            &["2: the line has no end, so the file may have been cut off"],
        ),
        (
            "twice",
            b" 7000\n 8000\n7000:tcp\n",
            &["1: tcp/7000", "2: tcp/8000"],
            &["3: the same as line 1, and a sequence works once"],
        ),
        (
            "used before",
            b"#7000\n 8000\n 7000\n",
            &["2: tcp/8000"],
            &["3: the same as line 1, and a sequence works once"],
        ),
        ("used, and cut off", b" 7000\n#8000", &["1: tcp/7000"], &[]),
    ];
    for (name, text, sequences, wrong) in rows {
        let one_time_text = OneTimeText::new(text.to_vec());
        assert_eq!(unused(&one_time_text), sequences, "{name}");
        assert_eq!(flaws(&one_time_text), wrong, "{name}");
        assert_eq!(one_time_text.text(), text, "{name}");
    }
}

#[test]
fn marking_marks_a_line_and_those_before() {
    let rows: [MarkRow<'_>; 9] = [
        ("the first", b" 7000\n 8000\n", 1, Some(b"#7000\n 8000\n")),
        (
            "and those before",
            b" 7000\n\t8000\n 9000\n",
            2,
            Some(b"#7000\n#8000\n 9000\n"),
        ),
        (
            "no blank in front",
            b"7000\n8000\n",
            1,
            Some(b"#7000\n8000\n"),
        ),
        ("two blanks", b"  7000\n", 1, Some(b"# 7000\n")),
        (
            "Windows line ends",
            b" 7000\r\n 8000\r\n",
            1,
            Some(b"#7000\r\n 8000\r\n"),
        ),
        (
            "what else is there stays",
            b"# mine\n\n ssh\n\xff\n 7000\n 8000,9",
            5,
            Some(b"# mine\n\n ssh\n\xff\n#7000\n 8000,9"),
        ),
        (
            "twice",
            b" 7000\n 7000\n 8000\n",
            2,
            Some(b"#7000\n#7000\n 8000\n"),
        ),
        ("marked", b"#7000\n 8000\n", 1, None),
        ("no line", b" 7000\n", 0, None),
    ];
    for (name, text, line, marked) in rows {
        let found = OneTimeText::new(text.to_vec()).marked(line);
        let text = found.as_ref().map(OneTimeText::text);
        assert_eq!(text, marked, "{name}");
        if let Some(found) = &found {
            let again = OneTimeText::new(found.text().to_vec());
            assert_eq!(unused(found), unused(&again), "{name}");
            assert_eq!(found.marked(line), None, "{name}");
        }
    }
}

proptest! {
    /// Whatever is in a file: a mark ends its line and those before it, once, and changes nothing
    /// else.
    #[test]
    fn marking_changes_no_other_byte(text in any_text(), choice: prop::sample::Index) {
        let one_time_text = OneTimeText::new(text.clone());
        let lines: Vec<u32> = one_time_text.unused().map(|(line, _)| line).collect();
        prop_assume!(!lines.is_empty());
        let line = lines[choice.index(lines.len())];
        let marked = one_time_text.marked(line).unwrap();
        prop_assert_eq!(marked.marked(line), None, "idempotent");
        let later: Vec<u32> = lines.iter().copied().filter(|&later| later > line).collect();
        let left: Vec<u32> = marked.unused().map(|(line, _)| line).collect();
        prop_assert_eq!(&left, &later);
        let again = OneTimeText::new(marked.text().to_vec());
        prop_assert_eq!(unused(&marked), unused(&again), "as it is read again");
        // Without marks and the blanks that they replace, the lines are the same.
        let bare = |text: &[u8]| -> Vec<Vec<u8>> {
            let lines = text.split(|&byte| byte == b'\n');
            lines
                .map(|line| {
                    let line = line.strip_prefix(b"#").unwrap_or(line);
                    line.trim_ascii_start().to_vec()
                })
                .collect()
        };
        prop_assert_eq!(bare(marked.text()), bare(&text));
        let end = marked.text().len() - book_end(&one_time_text, line);
        prop_assert_eq!(&marked.text()[end..], &text[text.len() - book_end(&one_time_text, line)..]);
    }
}

/// What a client does with a file: it takes the next line, or stops at one that can't be used.
#[test]
fn a_client_does_not_skip_a_line_that_cannot_be_used() {
    for (name, text, expected) in [
        ("the first", " 7000\n 8000\n", "1: tcp/7000"),
        (
            "comments and used ones",
            "# mine\n#7000\n\n 8000\n",
            "4: tcp/8000",
        ),
        ("no knock", "#7000\n ssh\n 8000\n", "2 is wrong"),
        ("the same as a used one", "#7000\n tcp/7000\n", "2 is wrong"),
        ("cut off", " 80", "1 is wrong"),
        ("nothing left", "#7000\n# mine\n", "nothing"),
    ] {
        let one_time_text = OneTimeText::new(text.into());
        let found = match one_time_text.next() {
            Some(NextLine::Sequence(line, knocks)) => format!("{line}: {}", words(knocks)),
            Some(NextLine::Flawed(flaw)) => format!("{} is wrong", flaw.line),
            None => "nothing".to_owned(),
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_used_line_that_was_cut_off_is_a_comment() {
    let one_time_text = OneTimeText::new(b"#7000\n#8000".to_vec());
    assert!(one_time_text.sequence(1).is_some());
    assert_eq!(one_time_text.sequence(2), None);
}

fn words(knocks: &[Knock]) -> String {
    let words: Vec<String> = knocks.iter().map(ToString::to_string).collect();
    words.join(" ")
}

fn unused(one_time_text: &OneTimeText) -> Vec<String> {
    let unused = one_time_text.unused();
    unused
        .map(|(line, knocks)| format!("{line}: {}", words(knocks)))
        .collect()
}

fn flaws(one_time_text: &OneTimeText) -> Vec<String> {
    let flaws = one_time_text.flaws();
    flaws
        .map(|flaw| format!("{}: {}", flaw.line, flaw.reason))
        .collect()
}

/// Returns a text like a file: mostly right, some of it broken.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b" 7000:tcp,8000:udp".to_vec()),
        (1_u16..9).prop_map(|port| format!(" {port}").into_bytes()),
        Just(b"tcp/7000 udp/8000".to_vec()),
        Just(b"#".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b",".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Returns how many bytes stand behind a line.
fn book_end(one_time_text: &OneTimeText, line: u32) -> usize {
    let lines = one_time_text.text().split_inclusive(|&byte| byte == b'\n');
    lines.skip(line as usize).map(<[u8]>::len).sum()
}
