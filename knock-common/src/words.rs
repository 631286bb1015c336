//! What people write, read the same by the host's program and by the client's: durations and knocks.

use core::time::Duration;

use crate::packet::Protocol;

/// The units of a duration, from the longest on.
pub const UNITS: [(&str, Duration); 6] = [
    ("d", Duration::from_secs(86_400)),
    ("h", Duration::from_secs(3600)),
    ("m", Duration::from_secs(60)),
    ("s", Duration::from_secs(1)),
    ("ms", Duration::from_millis(1)),
    ("us", Duration::from_micros(1)),
];

/// Reads `500ms`, `30s`, `2h`, `1h30m`: whole numbers with units, each unit once at most and longer
/// ones first.
///
/// `None` if the text is something else, or longer than [`Duration::MAX`].
pub fn duration(text: &str) -> Option<Duration> {
    let mut units = UNITS.iter();
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let (number, after) = split(rest, u8::is_ascii_digit)?;
        let (unit, after) = split(after, u8::is_ascii_lowercase)?;
        // The units before the one that was found are not looked at again.
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(times(*length, number.parse().ok()?)?)?;
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
}

/// The text as long as its octets are of a kind, and what follows.
fn split(text: &str, is_of_kind: fn(&u8) -> bool) -> Option<(&str, &str)> {
    text.split_at_checked(text.bytes().take_while(is_of_kind).count())
}

fn times(length: Duration, number: u64) -> Option<Duration> {
    let micros = length.as_micros().checked_mul(u128::from(number))?;
    let seconds = u64::try_from(micros.checked_div(1_000_000)?).ok()?;
    let rest = u64::try_from(micros.checked_rem(1_000_000)?).ok()?;
    Duration::from_secs(seconds).checked_add(Duration::from_micros(rest))
}

/// Reads `tcp/7000`, and what knockd and its client take: `7000`, `7000:tcp`, `8000:UDP`.
///
/// A bare port has no protocol. `None` if the word is something else; ports go from 1 to 65535.
pub fn knock(word: &str) -> Option<(Option<Protocol>, u16)> {
    let (protocol, port) = match (word.split_once('/'), word.split_once(':')) {
        (Some(("tcp", port)), _) => (Some(Protocol::Tcp), port),
        (Some(("udp", port)), _) => (Some(Protocol::Udp), port),
        (Some(_), _) => return None,
        (None, Some((port, name))) if name.eq_ignore_ascii_case("tcp") => {
            (Some(Protocol::Tcp), port)
        }
        (None, Some((port, name))) if name.eq_ignore_ascii_case("udp") => {
            (Some(Protocol::Udp), port)
        }
        (None, Some(_)) => return None,
        (None, None) => (None, word),
    };
    // Only digits: a number may also have a sign.
    let (digits, rest) = split(port, u8::is_ascii_digit)?;
    let port = digits
        .parse()
        .ok()
        .filter(|port| *port != 0 && rest.is_empty())?;
    Some((protocol, port))
}
