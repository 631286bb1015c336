//! Frames for tests, and the TCP flags that they have.

pub use knock_common::packet::flag::{ACK, FIN, PSH, RST, SYN, URG};
pub use knock_frame::{Frame, eth};

/// The flags of the answer to a SYN.
pub const SYN_ACK: u8 = SYN | ACK;
