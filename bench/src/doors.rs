//! Generates configurations with many doors.

use std::{fmt::Write as _, path::Path};

use knock_sequence::spa::PublicKey;

/// The knocks of the first of them, and the port that it opens.
pub const KNOCKS: [u16; 3] = [20_000, 30_000, 10_000];
/// See [`KNOCKS`].
pub const OPENS: u16 = 1;
/// Three digits of base 22 would be doors enough; the middle knock is the greatest: no scan is one.
const DIGITS: u32 = 22;
/// Ports that are opened.
const PORTS: u32 = 1000;

/// Returns this many doors, which share beginnings.
pub fn many(count: u32) -> String {
    let mut text = String::new();
    for door in 0..count {
        let digits = [
            door % DIGITS,
            door / DIGITS % DIGITS,
            door / DIGITS / DIGITS,
        ];
        let knocks: Vec<String> = KNOCKS
            .iter()
            .zip(digits)
            .map(|(base, digit)| format!("\"tcp/{}\"", u32::from(*base) + digit))
            .collect();
        let port = u32::from(OPENS) + door % PORTS;
        // Writing to a String does not fail.
        let _written = writeln!(
            text,
            "[[door]]\nname = \"d{door}\"\nknock = [{}]\nopen = [\"tcp/{port}\"]\n\
             open_for = \"1h\"\nsequence_timeout = \"30m\"",
            knocks.join(", "),
        );
    }
    text
}

/// Returns a configuration with users of one key each, who may open one door.
pub fn with_users(count: u32, host_key: &Path) -> String {
    let mut text = format!("[spa]\nkey = {host_key:?}\n");
    for user in 0..count {
        // Most octets are a public key; those of low order have none of these in front.
        let mut octets = [7; 32];
        octets[..4].copy_from_slice(&user.to_le_bytes());
        let key = PublicKey::from_octets(octets);
        text +=
            &format!("[[user]]\nname = \"user{user}\"\nkeys = [\"{key}\"]\ndoors = [\"ssh\"]\n");
    }
    text + "[[door]]\nname = \"ssh\"\nopen = [\"tcp/22\"]\n"
}
