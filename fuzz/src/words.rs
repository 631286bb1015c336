//! Durations, knocks and ports: a value is unchanged when it is written and read again.

use std::{fmt::Display, str::FromStr};

use knock_sequence::{Invalid, Knock, KnockSpec, Ports, Protocol, duration};

use crate::text::assert_harmless;

/// Reads a word as each of these.
pub fn check(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    match duration::parse(text) {
        Ok(read) => {
            let written = duration::spell(read);
            assert_eq!(
                duration::parse(&written),
                Ok(read),
                "{written:?} for {text:?}"
            );
        }
        Err(error) => assert_harmless(&error.to_string()),
    }
    reads_again::<Ports>(text);
    let knock = reads_again::<Knock>(text);
    match text.parse::<KnockSpec>() {
        Ok(word) => {
            assert_ne!(word.port, 0, "{text:?}");
            let strict = word.knock(Protocol::Tcp).to_string();
            assert_eq!(strict.parse(), Ok(word.knock(Protocol::Tcp)), "{text:?}");
        }
        Err(error) => {
            assert_harmless(&error.to_string());
            assert_eq!(
                knock, None,
                "the strict form is one of the others: {text:?}"
            );
        }
    }
}

fn reads_again<T>(text: &str) -> Option<T>
where
    T: FromStr<Err = Invalid> + Display + PartialEq + std::fmt::Debug,
{
    match text.parse::<T>() {
        Ok(read) => {
            let written = read.to_string();
            assert_eq!(written.parse(), Ok(read), "{written:?} for {text:?}");
            text.parse().ok()
        }
        Err(error) => {
            assert_harmless(&error.to_string());
            None
        }
    }
}
