//! Amounts of memory as text: `64MB`, `16MiB`.

/// The units that a configuration may use, with their octets.
const UNITS: [(&str, u64); 6] = [
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Reads an amount of memory, in octets: a whole number and a unit.
///
/// # Errors
/// Returns the reason, with the cure, if the text is not an amount.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is not an amount of memory: write a whole number and a unit (kB, KiB, MB, MiB, GB or GiB), \
             as in \"64MB\" or \"512KiB\""
        )
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim_start());
    let octets = number
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(number, (_, octets))| number.checked_mul(*octets));
    octets.ok_or_else(wrong)
}

/// Returns an amount of memory in kB, or in MB with one digit after the point.
pub fn spell(octets: u64) -> String {
    match octets {
        0..1_000_000 => format!("{} kB", octets.div_ceil(1_000)),
        _ => {
            let tenths = octets.div_ceil(100_000);
            format!("{}.{} MB", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        for (text, octets) in [
            ("64MB", Some(64_000_000)),
            ("16 MiB", Some(16 << 20)),
            ("512KiB", Some(512 << 10)),
            ("100kB", Some(100_000)),
            ("1GB", Some(1_000_000_000)),
            ("2GiB", Some(2 << 30)),
            ("64", None),
            ("MB", None),
            ("", None),
            ("-1MB", None),
            ("1.5MB", None),
            ("64KB", None),
            ("64mb", None),
            ("64M", None),
            ("99999999999999999999MB", None),
            ("18446744073709551615GB", None),
        ] {
            assert_eq!(parse(text).ok(), octets, "{text:?}");
        }
    }

    #[test]
    fn a_wrong_unit_is_refused_with_those_that_there_are() {
        for text in ["64KB", "64mb", "64M"] {
            let reason = parse(text).unwrap_err();
            for (unit, _) in UNITS {
                assert!(reason.contains(unit), "{text:?}: {unit}: {reason}");
            }
        }
    }

    #[test]
    fn amounts_are_rounded_up() {
        for (octets, text) in [
            (0, "0 kB"),
            (1, "1 kB"),
            (999_001, "1000 kB"),
            (1_000_000, "1.0 MB"),
            (16_777_216, "16.8 MB"),
            (84_000_001, "84.1 MB"),
        ] {
            assert_eq!(spell(octets), text, "{octets}");
        }
    }
}
