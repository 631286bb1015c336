//! Sends requests to the kernel over netlink.

use std::ops::ControlFlow;

use anyhow::{Context as _, Result, ensure};
use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// The length of the longest datagram from the kernel (`NLMSG_GOODSIZE` and `netlink_dump`).
pub const DATAGRAM: usize = 32 * 1024;

/// Sends a request and hands each answer to `take`, until the kernel marks the last one.
///
/// # Errors
/// The kernel refuses the request, or its answer can't be read.
pub fn dump<T>(
    protocol: isize,
    request: NetlinkMessage<T>,
    flags: u16,
    mut take: impl FnMut(T),
) -> Result<()>
where
    T: NetlinkSerializable + NetlinkDeserializable,
{
    dump_while(protocol, request, flags, |answer| {
        take(answer);
        ControlFlow::Continue(())
    })
}

/// Does the same as [`dump`] until `take` breaks off; the kernel then makes no further answers.
///
/// # Errors
/// As for [`dump`].
pub fn dump_while<T>(
    protocol: isize,
    mut request: NetlinkMessage<T>,
    flags: u16,
    mut take: impl FnMut(T) -> ControlFlow<()>,
) -> Result<()>
where
    T: NetlinkSerializable + NetlinkDeserializable,
{
    let mut socket = Socket::new(protocol).context("opening a netlink socket")?;
    socket.bind_auto().context("binding a netlink socket")?;
    socket
        .connect(&SocketAddr::new(0, 0))
        .context("connecting to the kernel over netlink")?;
    request.header.flags = flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket
        .send(&bytes, 0)
        .context("asking the kernel over netlink")?;
    loop {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        socket
            .recv(&mut datagram, 0)
            .context("reading the kernel's answer over netlink")?;
        for answer in messages(&datagram) {
            let answer = answer.context("parsing the kernel's answer over netlink")?;
            if let NetlinkPayload::InnerMessage(message) = answer {
                if take(message).is_break() {
                    return Ok(());
                }
            } else if let NetlinkPayload::Error(error) = answer {
                ensure!(
                    error.code.is_none(),
                    "the kernel refuses over netlink: {}",
                    error.to_io()
                );
                return Ok(());
            } else if let NetlinkPayload::Done(_) = answer {
                return Ok(());
            }
        }
    }
}

/// Returns the messages of a datagram, up to the first that can't be read.
pub fn messages<T: NetlinkDeserializable>(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkPayload<T>, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<T>::deserialize(rest);
        let length = message.as_ref().map_or(rest.len(), |message| {
            (message.header.length as usize).next_multiple_of(4).max(1)
        });
        rest = rest.get(length..).unwrap_or_default();
        Some(message.map(|message| message.payload))
    })
}
