//! Generates configurations with many doors.

use std::fmt::Write as _;

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
