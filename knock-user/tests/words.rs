//! knock-user reads the same as knock-client in what people write.

#[path = "../../knock-common/tests/shared/words.rs"]
mod shared;

use knock_user::{config::value, one_time::Book};

#[test]
fn durations() {
    for (word, duration) in shared::DURATIONS {
        assert_eq!(value::duration(word).ok(), duration, "{word:?}");
    }
}

/// What is printed can be read.
#[test]
fn printed_durations() {
    for (word, duration) in shared::DURATIONS {
        let Some(duration) = duration else { continue };
        assert_eq!(
            value::duration(&value::spell(duration)),
            Ok(duration),
            "{word:?}"
        );
    }
}

/// The next line of a file, and its knocks.
fn next(octets: &[u8]) -> Option<(u32, String)> {
    let book = Book::new(octets.to_vec());
    let (line, knocks) = book.unused().next()?;
    let knocks: Vec<_> = knocks.iter().map(ToString::to_string).collect();
    Some((line, knocks.join(" ")))
}

#[test]
fn knocks() {
    for (word, knock) in shared::KNOCKS {
        let read = next(format!(" {word}\n").as_bytes());
        let expected = knock.map(|knock| (1, knock.to_owned()));
        assert_eq!(read, expected, "{word:?}");
    }
}

#[test]
fn one_time_files() {
    for (name, octets, expected) in shared::FILES {
        let expected = expected.map(|(line, knocks)| (line, knocks.to_owned()));
        assert_eq!(next(octets), expected, "{name}");
    }
}
