//! Time-based sequences of a door.

use std::path::PathBuf;

use knock_common::layout;
use knock_sequence::{Protocol, otp::TimeBased};

/// What the sequences of a door are made of that change with time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Otp {
    /// What clients know, too.
    pub sequences: TimeBased,
    /// Where the secret is configured.
    pub origin: Origin,
    /// How many periods before and after the current one open too.
    pub skew: u16,
}

/// Where a secret stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// In the configuration itself.
    Written,
    /// In a file of its own.
    File(PathBuf),
    /// In the environment.
    Environment,
}

impl Otp {
    /// The knocks of a half as the kernel side makes them.
    pub fn entry(&self) -> layout::Otp {
        let udp = (self.sequences.protocols.iter().enumerate())
            .filter(|(_, protocol)| **protocol == Protocol::Udp)
            .fold(0, |udp, (knock, _)| udp | 1 << knock);
        layout::Otp {
            secret: self.sequences.secret,
            udp,
            base: self.sequences.base,
            padding: 0,
        }
    }
}
