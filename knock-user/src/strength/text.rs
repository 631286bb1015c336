//! Writes strengths in words.

use std::fmt;

use super::estimate::{Candidates, Scanned, Strength};

/// Tries a second that an attacker can make without much attention.
const TRIES_PER_SECOND: f64 = 1000.0;
/// Numbers of more bits are shown as powers of two.
const EXACT_BITS: f64 = 20.0;

impl Strength {
    /// Returns the effort of an attacker who has not scanned the host.
    pub fn blind(&self) -> String {
        let Self {
            knocks,
            counted,
            symbols,
            good,
            bits,
            ..
        } = *self;
        let as_many = match counted == knocks {
            true => String::new(),
            false => format!(
                "{knocks} knocks, of which repetition makes all but {counted} \
                 useless: "
            ),
        };
        let plural = if counted == 1 { "knock" } else { "knocks" };
        let at_a_time = match good {
            1 => String::new(),
            many => format!(", {many} of them valid at a time"),
        };
        let tries = self.tries_bits();
        format!(
            "{as_many}{counted} {plural} on {symbols} ports: {} sequences{at_a_time}; one is found \
             after {} tries, {} at a thousand a second",
            number(bits),
            number(tries),
            time(tries)
        )
    }
}

impl fmt::Display for Scanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("a scan shows nothing: knocks pass to the network stack"),
            Self::Range => f.write_str(
                "a scan shows only the range: all ports on which knocks may be look alike",
            ),
            Self::Silent(candidates) => write!(
                f,
                "{}, because they send no reset as closed ports do: {}; none stands out if the \
                 host resets no connections",
                stand_out(candidates),
                orders(candidates)
            ),
            Self::Answering(candidates) => write!(
                f,
                "{}, because they complete handshakes: {}",
                stand_out(candidates),
                orders(candidates)
            ),
        }
    }
}

fn stand_out(candidates: &Candidates) -> String {
    match candidates.ports {
        1 => "1 port stands out".to_owned(),
        ports => format!("{ports} ports stand out"),
    }
}

/// Returns a text such as `336 orders, less than a second at a thousand tries a second`.
fn orders(candidates: &Candidates) -> String {
    let orders = number(candidates.bits);
    let plural = if orders == "1" { "order" } else { "orders" };
    format!(
        "{orders} {plural}, {} at a thousand tries a second",
        time(candidates.bits)
    )
}

/// Writes a power of two as a number, exact if it is small.
pub(crate) fn number(bits: f64) -> String {
    if bits < EXACT_BITS {
        format!("{:.0}", bits.max(0.0).exp2())
    } else {
        format!("about 2^{bits:.0}")
    }
}

fn time(bits: f64) -> String {
    span(bits.max(0.0).exp2() / TRIES_PER_SECOND)
}

/// Writes a time in seconds in words, with two significant digits.
pub fn span(seconds: f64) -> String {
    const YEAR: f64 = 365.25 * 86_400.0;
    if seconds > 1e6 * YEAR {
        return "millions of years".to_owned();
    }
    for (length, name) in [
        (YEAR, "years"),
        (86_400.0, "days"),
        (3600.0, "hours"),
        (60.0, "minutes"),
    ] {
        let count = seconds / length;
        if count >= 2.0 {
            return format!("{:.0} {name}", two_digits(count));
        }
    }
    if seconds < 1.0 {
        return "less than a second".to_owned();
    }
    format!("{seconds:.0} seconds")
}

fn two_digits(count: f64) -> f64 {
    let unit = 10_f64.powf((count.log10().floor() - 1.0).max(0.0));
    (count / unit).round() * unit
}
