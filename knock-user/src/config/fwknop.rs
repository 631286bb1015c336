//! Reads the files with the keys of fwknop's clients.
//!
//! ```text
//! KEY_BASE64       jMz8PtRh…=
//! HMAC_KEY_BASE64  qWlkTy2…=
//! ```
//!
//! `fwknop --key-gen` prints such lines with colons; access.conf and .fwknoprc have them without.

use std::{io::Read as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use knock_common::fwknop::PASSPHRASE_MAX;

use crate::{
    host::{files, os_error},
    model::spa::FwknopKeys,
};

/// More than two keys in base64, with comments.
const FILE_MAX: u64 = 64 << 10;
/// The longest HMAC key that fwknop accepts, in bytes.
const HMAC_KEY_MAX: usize = 136;

/// Reads both keys from a file. No error shows any part of them.
///
/// # Errors
/// Returns the reason with the name of the file and the cure.
pub(super) fn read_keys(path: &Path) -> Result<FwknopKeys, String> {
    let shown = path.display();
    let otherwise = "it is not a regular file: a reload reads the keys again, so write them to a \
                     file";
    let mut text = String::new();
    files::open_regular(path, otherwise)
        .and_then(|file| file.take(FILE_MAX).read_to_string(&mut text))
        .map_err(|error| {
            let reason = os_error::reason_of_named(&error, &shown.to_string());
            format!("{shown} can't be read: {reason}")
        })?;
    parse(&text).map_err(|reason| format!("{shown}: {reason}"))
}

/// Parses the text of such a file.
///
/// # Errors
/// Returns the reason and the cure.
pub(crate) fn parse(text: &str) -> Result<FwknopKeys, String> {
    let mut passphrase = None;
    let mut hmac_key = None;
    // Editors of other systems begin a file with this mark.
    let text = text.trim_start_matches('\u{feff}');
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';', '[']) {
            continue;
        }
        let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim().trim_end_matches(';').trim_end();
        let (place, is_base64) = match name.trim_end_matches(':') {
            "KEY_BASE64" => (&mut passphrase, true),
            "KEY" => (&mut passphrase, false),
            "HMAC_KEY_BASE64" => (&mut hmac_key, true),
            "HMAC_KEY" => (&mut hmac_key, false),
            _ => {
                return Err(format!(
                    "line {number} is neither KEY_BASE64 nor HMAC_KEY_BASE64: keep only these, as \
                     `fwknop --key-gen` prints them"
                ));
            }
        };
        if place.is_some() {
            return Err(format!("line {number} repeats a key: keep one of each"));
        }
        let bytes = match is_base64 {
            true => STANDARD.decode(value).map_err(|_error| {
                format!("line {number} is not base64: copy it again from `fwknop --key-gen`")
            })?,
            false => value.as_bytes().to_vec(),
        };
        *place = Some(bytes);
    }
    let passphrase =
        passphrase.ok_or("KEY_BASE64 is missing: add the line that `fwknop --key-gen` prints")?;
    let hmac_key = hmac_key.ok_or_else(|| {
        "HMAC_KEY_BASE64 is missing, and packets without an HMAC are not accepted: make both keys \
         with `fwknop --key-gen`, and write USE_HMAC Y in the client's .fwknoprc"
            .to_owned()
    })?;
    if !(1..=PASSPHRASE_MAX).contains(&passphrase.len()) {
        return Err(format!(
            "the key has {} bytes, and may have 1 to {PASSPHRASE_MAX}: make another with `fwknop \
             --key-gen`",
            passphrase.len()
        ));
    }
    if !(1..=HMAC_KEY_MAX).contains(&hmac_key.len()) {
        return Err(format!(
            "the HMAC key has {} bytes, and may have 1 to {HMAC_KEY_MAX}: make another with \
             `fwknop --key-gen`",
            hmac_key.len()
        ));
    }
    Ok(FwknopKeys {
        passphrase,
        hmac_key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";

    #[test]
    fn keys_are_read_in_all_forms() {
        for (name, text) in [
            (
                "of --key-gen",
                format!("KEY_BASE64: {KEY}\nHMAC_KEY_BASE64: QUJD\n"),
            ),
            (
                "of access.conf",
                format!("# bob\nKEY_BASE64    {KEY};\nHMAC_KEY_BASE64 QUJD;\n"),
            ),
            (
                "with a byte order mark",
                format!("\u{feff}KEY_BASE64 {KEY}\r\nHMAC_KEY_BASE64 QUJD\r\n"),
            ),
            ("as text", format!("KEY {}\nHMAC_KEY ABC\n", "A".repeat(32))),
        ] {
            let keys = parse(&text).unwrap();
            assert_eq!(keys.passphrase, [b'A'; 32], "{name}");
            assert_eq!(keys.hmac_key, b"ABC", "{name}");
            assert_eq!(format!("{keys:?}"), "FwknopKeys(…)");
        }
    }

    #[test]
    fn no_error_shows_a_key() {
        let rows = [
            (
                "no HMAC key",
                format!("KEY_BASE64 {KEY}"),
                "HMAC_KEY_BASE64 is missing",
            ),
            (
                "no key",
                format!("HMAC_KEY_BASE64 {KEY}"),
                "KEY_BASE64 is missing",
            ),
            ("empty", String::new(), "KEY_BASE64 is missing"),
            (
                "twice",
                format!("KEY_BASE64 {KEY}\nKEY secret"),
                "line 2 repeats a key",
            ),
            (
                "no base64",
                "KEY_BASE64 s3cr-et".to_owned(),
                "line 1 is not base64",
            ),
            (
                "another key",
                "SECRET s3cret".to_owned(),
                "line 1 is neither",
            ),
            (
                "a long one",
                format!("KEY {}\nHMAC_KEY ABC", "s3cret".repeat(9)),
                "the key has 54 bytes, and may have 1 to 32",
            ),
        ];
        for (name, text, expected) in rows {
            let reason = parse(&text).unwrap_err();
            assert!(reason.starts_with(expected), "{name}: {reason}");
            assert!(
                !reason.contains("s3cr") && !reason.contains(KEY),
                "{name}: {reason}"
            );
        }
    }
}
