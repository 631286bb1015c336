//! Durations as people write them: `5ms`.

use knock_common::words;
use std::time::Duration;

/// Why a word is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{word}' is not a duration: write whole numbers and us, ms, s, m, h or d, such as 5ms or 1h30m"
)]
pub struct ParseDurationError {
    /// What was written.
    pub word: String,
}

/// Reads `0ms`, `250us`, `5ms`, `1s`, `1h30m`.
///
/// # Errors
///
/// If the word has no unit, an unknown one, or a number that is not whole or too large.
pub fn parse_duration(word: &str) -> Result<Duration, ParseDurationError> {
    words::duration(word).ok_or_else(|| ParseDurationError {
        word: word.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_durations() {
        let rows = [
            ("none", "0ms", Duration::ZERO),
            ("microseconds", "250us", Duration::from_micros(250)),
            ("milliseconds", "5ms", Duration::from_millis(5)),
            (
                "more than a second of them",
                "1500ms",
                Duration::from_millis(1500),
            ),
            ("seconds", "1s", Duration::from_secs(1)),
            ("minutes", "2m", Duration::from_secs(120)),
            (
                "the longest",
                "18446744073709551615s",
                Duration::from_secs(u64::MAX),
            ),
        ];
        for (name, word, duration) in rows {
            assert_eq!(parse_duration(word), Ok(duration), "{name}: {word}");
        }
    }

    #[test]
    fn words_that_are_not() {
        let rows = [
            ("empty", ""),
            ("no unit", "5"),
            ("no number", "ms"),
            ("unknown unit", "5min"),
            ("capital unit", "5S"),
            ("blank", "5 ms"),
            ("sign", "+5ms"),
            ("negative", "-5ms"),
            ("fraction", "0.5s"),
            ("too large to read", "18446744073709551616s"),
            ("too large in seconds", "18446744073709551615m"),
        ];
        for (name, word) in rows {
            let error = format!(
                "'{word}' is not a duration: write whole numbers and us, ms, s, m, h or d, \
                 such as 5ms or 1h30m"
            );
            let parsed = parse_duration(word);
            assert_eq!(
                parsed.map_err(|e| e.to_string()),
                Err(error),
                "{name}: {word}"
            );
        }
    }
}
