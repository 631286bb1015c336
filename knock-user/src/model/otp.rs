//! Settings of time-based sequences.

use std::path::PathBuf;

use knock_common::layout;
use knock_sequence::{Protocol, otp::TimeBased};

/// The settings of the time-based sequences of a door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Otp {
    /// The settings that clients share.
    pub sequences: TimeBased,
    /// The place of the secret in the configuration.
    pub origin: SecretOrigin,
    /// How many periods before and after the current one are accepted.
    pub skew: u16,
}

/// The place of a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretOrigin {
    /// In the configuration itself.
    Written,
    /// In a file of its own.
    File(PathBuf),
    /// In the environment.
    Environment,
}

impl Otp {
    /// Returns the map entry with which the kernel side derives the knocks of a half.
    pub fn entry(&self) -> layout::OtpEntry {
        let udp = (self.sequences.protocols.iter().enumerate())
            .filter(|(_, protocol)| **protocol == Protocol::Udp)
            .fold(0, |udp, (knock, _)| udp | 1 << knock);
        layout::OtpEntry {
            secret: self.sequences.secret,
            udp,
            base: self.sequences.base,
            padding: 0,
        }
    }
}
