//! What people write, and what both programs read in it.

use knock_sequence::{KnockSpec, Protocol, one_time::OneTimeText};

/// A word in a file of one-time sequences, and the knock that it is.
const KNOCKS: [(&str, Option<&str>); 22] = [
    ("7000", Some("tcp/7000")),
    ("7000:tcp", Some("tcp/7000")),
    ("8000:udp", Some("udp/8000")),
    ("8000:UDP", Some("udp/8000")),
    ("tcp/7000", Some("tcp/7000")),
    ("udp/65535", Some("udp/65535")),
    ("tcp/1", Some("tcp/1")),
    ("07000", Some("tcp/7000")),
    ("TCP/7000", None),
    ("tcp:7000", None),
    ("7000/tcp", None),
    ("0", None),
    ("tcp/0", None),
    ("65536", None),
    ("udp/65536", None),
    ("-1", None),
    ("+7000", None),
    ("tcp/+7000", None),
    ("tcp/", None),
    (":tcp", None),
    ("icmp/7", None),
    ("7000:tcp:tcp", None),
];

/// A line, counted from 1, and its knocks.
type Next = (u32, &'static str);

/// A file of one-time sequences, and the sequence in it that is next: its line, and its knocks.
const FILES: [(&str, &[u8], Option<Next>); 9] = [
    ("ours", b" tcp/1 udp/2\n", Some((1, "tcp/1 udp/2"))),
    (
        "knockd's",
        b" 1:tcp,2:udp,3\n",
        Some((1, "tcp/1 udp/2 tcp/3")),
    ),
    ("used", b"#1,2\n 3,4\n", Some((2, "tcp/3 tcp/4"))),
    ("blank lines", b"\n \r\n 1,2\r\n", Some((3, "tcp/1 tcp/2"))),
    ("all used", b"#1\n#2\n", None),
    ("empty", b"", None),
    (
        "a comment in Latin-1",
        b"# f\xfcr den Server\n 1,2\n",
        Some((2, "tcp/1 tcp/2")),
    ),
    (
        "a comment in UTF-8",
        "# für den Server\n 1,2\n".as_bytes(),
        Some((2, "tcp/1 tcp/2")),
    ),
    (
        "octets that are not text",
        b"#\x00\xff\xfe\n 1,2\n",
        Some((2, "tcp/1 tcp/2")),
    ),
];

#[test]
fn every_knock_is_read_as_it_is_written() {
    for (word, knock) in KNOCKS {
        let read = word.parse::<KnockSpec>().ok();
        let read = read.map(|word| word.knock(Protocol::Tcp).to_string());
        assert_eq!(read.as_deref(), knock, "{word:?}");
        let in_a_file = next(format!(" {word}\n").as_bytes());
        let expected = knock.map(|knock| (1, knock.to_owned()));
        assert_eq!(in_a_file, expected, "{word:?}");
    }
}

#[test]
fn one_time_files_of_any_bytes_are_read() {
    for (name, octets, expected) in FILES {
        let expected = expected.map(|(line, knocks)| (line, knocks.to_owned()));
        assert_eq!(next(octets), expected, "{name}");
        // Only the mark is new.
        let Some((line, _)) = expected else { continue };
        let mut after = OneTimeText::new(octets.to_vec())
            .marked(line)
            .unwrap()
            .text()
            .to_vec();
        let lines = octets.split(|octet| *octet == b'\n');
        let begin: usize = lines
            .take(line as usize - 1)
            .map(|line| line.len() + 1)
            .sum();
        assert_eq!(after[begin], b'#', "{name}");
        after[begin] = b' ';
        assert_eq!(after, octets, "{name}");
    }
}

/// Returns the next line of a file, and its knocks.
fn next(octets: &[u8]) -> Option<(u32, String)> {
    let one_time_text = OneTimeText::new(octets.to_vec());
    let (line, knocks) = one_time_text.unused().next()?;
    let knocks: Vec<_> = knocks.iter().map(ToString::to_string).collect();
    Some((line, knocks.join(" ")))
}
