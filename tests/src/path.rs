//! The addresses of a packet.

use std::net::IpAddr;

/// The addresses of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// From the client.
    pub from: IpAddr,
    /// To the server.
    pub to: IpAddr,
}

impl Path {
    /// Returns the addresses of the opposite direction.
    #[must_use]
    pub fn back(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
        }
    }
}
