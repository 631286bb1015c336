//! A program at the client's end of the link that passes everything. Without a program there, veth keeps the frames
//! that the server's program sends back, because `veth_xdp_flush` wakes no receiver.

use std::fmt;

use aya::programs::XdpMode;
use knock_user::kernel::program::{LoadOptions, XdpProgram};
use nix::net::if_::if_nametoindex;

use crate::{
    kernel::compile,
    net::{CLIENT_LINK, Net},
};

/// The program, attached as long as this lives.
pub struct OtherEnd(#[expect(dead_code, reason = "dropping it detaches")] XdpProgram);

impl OtherEnd {
    /// Attaches it.
    ///
    /// # Panics
    /// The kernel refuses.
    #[track_caller]
    pub fn of(net: &Net) -> Self {
        let attach = || {
            let tables = compile("strict = false\nprotect = [\"udp/1\"]")?;
            let mut loaded = XdpProgram::load(&tables, LoadOptions::default())?;
            let index = if_nametoindex(CLIENT_LINK)?;
            let program = loaded.xdp()?;
            program.attach_to_if_index(index, XdpMode::Driver)?;
            anyhow::Ok(loaded)
        };
        match net.client.enter(attach) {
            Ok(loaded) => Self(loaded),
            Err(error) => panic!("a program in front of {CLIENT_LINK}: {error:#}"),
        }
    }
}

impl fmt::Debug for OtherEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtherEnd")
    }
}
