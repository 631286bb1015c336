//! The programs of the kernel object. They share all maps, and differ in where the kernel calls them
//! and in what a packet begins with there.

use crate::{host::interface::FirstHeader, model::attach_mode::AttachMode};

/// A program of the kernel object.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Entry {
    /// At XDP, for packets with an Ethernet header.
    Xdp,
    /// At XDP behind the driver, for packets that begin with the IP header.
    XdpIp,
    /// At traffic control, for packets with an Ethernet header.
    Tc,
    /// At traffic control, for packets that begin with the IP header.
    TcIp,
}

impl Entry {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Xdp, Self::XdpIp, Self::Tc, Self::TcIp];

    /// Returns the program for an attach mode and a first header; none if no program reads such
    /// packets there.
    pub const fn of(mode: AttachMode, header: FirstHeader) -> Option<Self> {
        match (mode, header) {
            (AttachMode::Native | AttachMode::Generic, FirstHeader::Ethernet) => Some(Self::Xdp),
            (AttachMode::Generic, FirstHeader::Ip) => Some(Self::XdpIp),
            (AttachMode::Tc, FirstHeader::Ethernet) => Some(Self::Tc),
            (AttachMode::Tc, FirstHeader::Ip) => Some(Self::TcIp),
            (AttachMode::Native, FirstHeader::Ip) | (_, FirstHeader::Other) => None,
        }
    }

    /// Returns its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => super::PROGRAM,
            Self::XdpIp => "knock_bare",
            Self::Tc => "knock_tc",
            Self::TcIp => "knock_ip",
        }
    }

    /// Returns whether a loaded program has one of these names.
    pub fn is_named(name: &str) -> bool {
        Self::ALL.iter().any(|entry| entry.name() == name)
    }

    /// Returns the end of the names of its pins.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Xdp => "",
            Self::XdpIp => "-bare",
            Self::Tc => "-tc",
            Self::TcIp => "-ip",
        }
    }
}
