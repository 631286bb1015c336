//! The formats that a port for single packet authorization accepts.

/// The formats that a port accepts, as bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SpaFormats(pub u8);

impl SpaFormats {
    /// The format of this project; see [`crate::spa`].
    pub const KNOCK: Self = Self(1 << 0);
    /// That of fwknop.
    pub const FWKNOP: Self = Self(1 << 1);

    const ALL: u8 = Self::KNOCK.0 | Self::FWKNOP.0;

    /// Returns whether all of `formats` are accepted.
    #[inline(always)]
    pub const fn has(self, formats: Self) -> bool {
        self.0 & formats.0 == formats.0
    }

    /// Returns these together with others.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// The treatment of packets that have none of a port's formats.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Otherwise {
    /// They are dropped.
    #[default]
    Drop,
    /// They pass, as packets to an exempt port.
    Pass,
    /// They need a grant for this port group.
    Protected(u16),
}

/// The formats that a port for single packet authorization accepts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SpaPort {
    /// The accepted formats.
    pub formats: SpaFormats,
    /// The treatment of other packets.
    pub otherwise: Otherwise,
}

impl SpaPort {
    const PASS: u8 = 1 << 2;
    const PROTECTED: u8 = 1 << 3;

    /// Returns it without the port group.
    #[inline(always)]
    pub const fn to_bits(self) -> u8 {
        let otherwise = match self.otherwise {
            Otherwise::Drop => 0,
            Otherwise::Pass => Self::PASS,
            Otherwise::Protected(_) => Self::PROTECTED,
        };
        self.formats.0 | otherwise
    }

    /// Reads the bits; unknown ones are ignored.
    #[inline(always)]
    pub const fn from_bits(bits: u8, port_group: u16) -> Self {
        Self {
            formats: SpaFormats(bits & SpaFormats::ALL),
            otherwise: if bits & Self::PROTECTED != 0 {
                Otherwise::Protected(port_group)
            } else if bits & Self::PASS != 0 {
                Otherwise::Pass
            } else {
                Otherwise::Drop
            },
        }
    }
}
