//! Frames that a test judges, with the fields that a model reads.

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
    /// Whether its destination is a multicast address of Ethernet.
    pub(crate) group: bool,
}

impl Frame {
    /// Returns the octets.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let ethernet = match self.group {
            true => knock_frame::eth().group(),
            false => knock_frame::eth(),
        };
        let ip = ethernet.ip(self.source, self.destination);
        match self.to.protocol {
            Protocol::Tcp => ip.tcp(40_000, self.to.port, self.flags),
            Protocol::Udp => ip.udp(40_000, self.to.port),
        }
        .bytes()
    }
}
