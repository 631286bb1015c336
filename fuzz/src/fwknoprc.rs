//! Files of fwknop's client: the result of any input can be read as profiles, and has no value of a directive that
//! may be a secret.

use std::path::Path;

use knock_client::{
    fwknop::{self, ConvertedRc, StanzaKey},
    profile,
};

use crate::text::assert_harmless;

/// A host's public key.
const KEY: &str = "knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM";
/// Directives whose values are not secrets.
const SHOWN: [&str; 4] = ["SPA_SERVER", "SPA_SERVER_PORT", "ALLOW_IP", "ACCESS"];
/// The shortest text that counts as a secret.
const SECRET_LEAST: usize = 9;

/// Converts bytes with the host's key, and without.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("fwknoprc");
    let Ok(key) = KEY.parse::<StanzaKey>();
    for keys in [&[][..], &[key]] {
        match fwknop::convert(&text, path, keys) {
            Err(error) => assert_harmless(&error.to_string()),
            Ok(ConvertedRc { toml, left }) => {
                assert_harmless(&left);
                assert_harmless(&toml);
                let read = profile::find_in(&toml, path, "");
                assert!(read.is_ok(), "{read:?}\n{toml}");
                assert_hides_secrets(&text, &toml);
            }
        }
    }
}

/// Fails if a word that is in the file once, and not where it may be shown, is in the result.
fn assert_hides_secrets(text: &str, toml: &str) {
    for line in text.lines() {
        let line = line.trim_start();
        let shown = SHOWN.iter().any(|name| line.starts_with(name));
        if shown || line.starts_with('[') {
            continue;
        }
        for word in line.split_whitespace().skip(1) {
            // The result has names in quotes.
            let word = word.trim_matches('"');
            let is_name = word.starts_with('[') || !word.contains(|c: char| c.is_ascii_lowercase());
            let is_secret =
                !is_name && word.len() >= SECRET_LEAST && text.matches(word).count() == 1;
            assert!(
                !is_secret || !toml.contains(word),
                "{word:?} of {line:?}\n{toml}"
            );
        }
    }
}
