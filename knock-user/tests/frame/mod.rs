//! Frames as they are on the wire.

use std::net::IpAddr;

use knock_common::packet::Protocol;
use knock_sequence::Knock;

/// A packet in an Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) to: Knock,
    /// TCP flags.
    pub(crate) flags: u8,
    /// Whether it is sent to a group of hosts.
    pub(crate) group: bool,
}

impl Frame {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if self.group {
            bytes[0] |= 1;
        }
        let (number, length) = match self.to.protocol {
            Protocol::Tcp => (6, 20_u8),
            Protocol::Udp => (17, 8),
        };
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([
                    0x08,
                    0x00,
                    0x45,
                    0,
                    0,
                    20 + length,
                    0,
                    0,
                    0,
                    0,
                    64,
                    number,
                    0,
                    0,
                ]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, number, 64]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            mixed => panic!("addresses of two families: {mixed:?}"),
        }
        bytes.extend(40_000_u16.to_be_bytes());
        bytes.extend(self.to.port.to_be_bytes());
        match self.to.protocol {
            Protocol::Tcp => {
                bytes.extend([
                    0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0,
                ]);
            }
            Protocol::Udp => bytes.extend([0, 8, 0, 0]),
        }
        bytes
    }
}
