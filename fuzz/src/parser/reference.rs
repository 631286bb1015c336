//! A parser that takes a frame apart header by header, as the RFCs describe them.

use knock_common::{Address, Reason, packet::Protocol};

/// The fields of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FrameFields {
    pub(crate) protocol: Protocol,
    pub(crate) flags: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) unicast: bool,
    pub(crate) source: Result<Address, Reason>,
    pub(crate) destination: Result<Address, Reason>,
}

/// The headers of IPv6 that may come before the transport header.
const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];

/// Reads a frame.
pub(crate) fn read(frame: &[u8]) -> Result<FrameFields, Reason> {
    let mut rest = Rest {
        bytes: frame,
        short: Reason::Truncated,
    };
    let ethernet: [u8; 14] = rest.header()?;
    let unicast = ethernet[0] & 1 == 0;
    let mut kind = [ethernet[12], ethernet[13]];
    let mut tags = 0;
    while kind == [0x81, 0x00] || kind == [0x88, 0xa8] {
        tags += 1;
        if tags == 3 {
            return Err(Reason::VlanTooDeep);
        }
        let [_, _, high, low] = rest.header()?;
        kind = [high, low];
    }
    let packet = match kind {
        [0x08, 0x00] => v4(&mut rest)?,
        [0x86, 0xdd] => v6(&mut rest)?,
        _ => return Err(Reason::NotIp),
    };
    let (protocol, flags, ports) = match packet.next {
        6 => {
            let header: [u8; 20] = rest.header()?;
            let [a, b, c, d, ..] = header;
            (Protocol::Tcp, header[13], [a, b, c, d])
        }
        17 => {
            let [a, b, c, d, _, _, _, _] = rest.header()?;
            (Protocol::Udp, 0, [a, b, c, d])
        }
        _ => return Err(Reason::OtherProtocol),
    };
    let [a, b, c, d] = ports;
    Ok(FrameFields {
        protocol,
        flags,
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        unicast,
        source: packet.source,
        destination: packet.destination,
    })
}

/// The fields of an IP packet before its transport header.
struct IpPacket {
    next: u8,
    source: Result<Address, Reason>,
    destination: Result<Address, Reason>,
}

/// The unread rest of a frame, and the reason to return if it is too short.
struct Rest<'a> {
    bytes: &'a [u8],
    short: Reason,
}

impl Rest<'_> {
    fn header<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let header = *self.bytes.first_chunk().ok_or(self.short)?;
        self.bytes = &self.bytes[N..];
        Ok(header)
    }

    /// Skips octets that may be missing as long as nothing behind them is read.
    fn skip(&mut self, count: usize) {
        self.bytes = self.bytes.get(count..).unwrap_or_default();
    }
}

/// Reads an IPv4 header (RFC 791). Half of it is enough to see that a packet has no ports, so a frame may end behind
/// it.
fn v4(rest: &mut Rest<'_>) -> Result<IpPacket, Reason> {
    let whole = rest.bytes;
    let first: [u8; 10] = rest.header()?;
    let (version, words) = (first[0] >> 4, first[0] & 15);
    if version != 4 || words < 5 {
        return Err(Reason::BadHeader);
    }
    let fragment = u16::from_be_bytes([first[6], first[7]]);
    if fragment & 0x1fff != 0 {
        return Err(Reason::LaterFragment);
    }
    if fragment & 0x2000 != 0 {
        rest.short = Reason::TinyFragment;
    }
    rest.bytes = whole;
    rest.skip(usize::from(words) * 4);
    let address = |at: usize| -> Result<Address, Reason> {
        let octets: &[u8; 4] = whole[at..].first_chunk().ok_or(Reason::Truncated)?;
        Ok(Address::from_v4(*octets))
    };
    let (source, destination) = match whole.len() {
        20.. => (address(12), address(16)),
        // Then nothing behind the header exists either.
        _ => (Err(Reason::Truncated), Err(Reason::Truncated)),
    };
    Ok(IpPacket {
        next: first[9],
        source,
        destination,
    })
}

/// Reads IPv6 headers (RFC 8200, and RFC 4302 for the length of the authentication header).
fn v6(rest: &mut Rest<'_>) -> Result<IpPacket, Reason> {
    let header: [u8; 40] = rest.header()?;
    if header[0] >> 4 != 6 {
        return Err(Reason::BadHeader);
    }
    let mut next = header[6];
    let mut extensions = 0;
    while EXTENSIONS.contains(&next) {
        extensions += 1;
        if extensions == 7 {
            return Err(Reason::ExtensionsTooLong);
        }
        next = extension(next, rest)?;
    }
    Ok(IpPacket {
        next,
        source: unmapped(&header[8..24]),
        destination: unmapped(&header[24..40]),
    })
}

/// Skips an extension header, and returns the kind of the next one.
fn extension(kind: u8, rest: &mut Rest<'_>) -> Result<u8, Reason> {
    let bytes = rest.bytes;
    let byte = |at: usize| bytes.get(at).copied().ok_or(rest.short);
    let length = match kind {
        44 => {
            let place = u16::from_be_bytes([byte(2)?, byte(3)?]);
            if place >> 3 != 0 {
                return Err(Reason::LaterFragment);
            }
            let next = byte(0)?;
            if place & 1 != 0 {
                rest.short = Reason::TinyFragment;
            } else {
                rest.short = Reason::Truncated;
            }
            rest.skip(8);
            return Ok(next);
        }
        51 => (usize::from(byte(1)?) + 2) * 4,
        _ => (usize::from(byte(1)?) + 1) * 8,
    };
    let next = byte(0)?;
    rest.skip(length);
    Ok(next)
}

fn unmapped(octets: &[u8]) -> Result<Address, Reason> {
    match (octets, octets.first_chunk()) {
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..], _) => Err(Reason::BadHeader),
        (_, Some(octets)) => Ok(Address::from_v6(*octets)),
        (_, None) => Err(Reason::Truncated),
    }
}
