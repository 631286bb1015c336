//! knock-client reads the same as knock-user in what people write.

#[path = "../../knock-common/tests/shared/words.rs"]
mod shared;

use std::fs;

use knock_client::{Word, one_time::take, parse_duration};

#[test]
fn durations() {
    for (word, duration) in shared::DURATIONS {
        assert_eq!(parse_duration(word).ok(), duration, "{word:?}");
    }
}

#[test]
fn knocks() {
    for (word, knock) in shared::KNOCKS {
        let read = word.parse::<Word>().ok();
        let read = read.map(|word| word.knock(knock_client::Protocol::Tcp).to_string());
        assert_eq!(read.as_deref(), knock, "{word:?}");
    }
}

#[test]
fn one_time_files() {
    let directory = tempfile::tempdir().unwrap();
    for (name, octets, next) in shared::FILES {
        let path = directory.path().join("once");
        fs::write(&path, octets).unwrap();
        let taken = take(&path).ok().map(|taken| {
            let knocks: Vec<_> = taken.knocks.iter().map(ToString::to_string).collect();
            (u32::try_from(taken.line).unwrap(), knocks.join(" "))
        });
        let next = next.map(|(line, knocks)| (line, knocks.to_owned()));
        assert_eq!(taken, next, "{name}");
        // Only the mark is new.
        let mut after = fs::read(&path).unwrap();
        if let Some((line, _)) = next {
            let lines = octets.split(|octet| *octet == b'\n');
            let begin: usize = lines
                .take(line as usize - 1)
                .map(|line| line.len() + 1)
                .sum();
            assert_eq!(after[begin], b'#', "{name}");
            after[begin] = b' ';
        }
        assert_eq!(after, octets, "{name}");
    }
}
