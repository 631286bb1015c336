//! Where the program runs on an interface.

use super::settings::Mode;

/// The place where the program is attached to an interface.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum AttachMode {
    /// At XDP, in the driver.
    Native,
    /// At XDP, behind the driver.
    Generic,
    /// At traffic control ingress, as the first TCX program.
    Tc,
}

impl AttachMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Native, Self::Generic, Self::Tc];

    /// Returns the word for the console, JSON and configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "skb",
            Self::Tc => "tc",
        }
    }

    /// Returns the setting that asks for this place alone.
    pub const fn setting(self) -> Mode {
        match self {
            Self::Native => Mode::Native,
            Self::Generic => Mode::Skb,
            Self::Tc => Mode::Tc,
        }
    }

    /// Returns whether the program there is an XDP program.
    pub const fn is_xdp(self) -> bool {
        match self {
            Self::Native | Self::Generic => true,
            Self::Tc => false,
        }
    }
}
