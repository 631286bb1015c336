//! Units of figures, and goals for them.

use std::fmt;

/// The unit of a figure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Nanoseconds.
    Nanos,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Million packets per second.
    Mpps,
    /// Gigabits per second.
    Gbits,
    /// Percent.
    Percent,
    /// Mebibytes.
    MiB,
    /// Kibibytes.
    KiB,
    /// Thousands per second.
    Thousands,
    /// A count.
    Count,
    /// A ratio.
    Times,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Nanos => "ns",
            Self::Micros => "µs",
            Self::Millis => "ms",
            Self::Mpps => "Mpps",
            Self::Gbits => "Gbit/s",
            Self::Percent => "%",
            Self::MiB => "MiB",
            Self::KiB => "KiB",
            Self::Thousands => "k/s",
            Self::Count => "",
            Self::Times => "×",
        }
    }

    const fn decimals(self, value: f64) -> usize {
        match self {
            Self::Count => 0,
            Self::Times | Self::Mpps => 2,
            Self::Nanos | Self::Micros | Self::Millis | Self::Percent if value < 1.0 => 2,
            Self::Nanos | Self::Micros | Self::Millis | Self::Percent if value < 100.0 => 1,
            Self::Gbits => 1,
            Self::MiB | Self::KiB | Self::Thousands if value < 10.0 => 1,
            Self::Nanos
            | Self::Micros
            | Self::Millis
            | Self::Percent
            | Self::MiB
            | Self::KiB
            | Self::Thousands => 0,
        }
    }

    /// Formats a number with its unit.
    pub fn show(self, value: f64) -> String {
        let number = format!("{value:.*}", self.decimals(value));
        match self {
            Self::Count => number,
            Self::Times => format!("{number}×"),
            Self::Nanos
            | Self::Micros
            | Self::Millis
            | Self::Mpps
            | Self::Gbits
            | Self::Percent
            | Self::MiB
            | Self::KiB
            | Self::Thousands => format!("{number} {}", self.name()),
        }
    }
}

/// A bound for a figure. The page of figures shows no goals.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    value: f64,
    unit: Unit,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// Requires a value that is not greater.
    pub const fn at_most(value: f64, most: f64, unit: Unit) -> Self {
        let bound = Bound::AtMost(most);
        Self { value, unit, bound }
    }

    /// Requires a value that is not less.
    pub const fn at_least(value: f64, least: f64, unit: Unit) -> Self {
        let bound = Bound::AtLeast(least);
        Self { value, unit, bound }
    }

    /// Returns whether the figure meets the goal.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, bound) = match self.bound {
            Bound::AtMost(most) => ("≤", most),
            Bound::AtLeast(least) => ("≥", least),
        };
        let verdict = if self.is_met() { "ok" } else { "MISSED" };
        let (value, bound) = (self.unit.show(self.value), self.unit.show(bound));
        write!(f, "{value} {sign} {bound} {verdict}")
    }
}
