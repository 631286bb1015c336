//! Packets of fwknop, and the texts inside them. Whatever the bytes are, nothing panics, what is accepted is within its
//! ranges, and a packet without the right HMAC is refused.

use bytemuck::Zeroable as _;
use knock_common::{
    fwknop::{
        self, FwknopNative, FwknopScratch, Passphrase,
        text::{MessageKind, NO_PORT, PORTS_MAX, Request},
    },
    hmac_sha256::HmacKey,
    layout::PORT_RULES,
};

/// Reads the bytes as a text, and judges them as a packet.
pub fn check(bytes: &[u8]) {
    let request = read(Request::zeroed(), bytes);
    let again = read(request, bytes);
    assert_eq!(
        bytemuck::bytes_of(&request),
        bytemuck::bytes_of(&again),
        "the reader keeps nothing of an earlier text"
    );
    if request.kind() == MessageKind::Access {
        let count = request.port_count as usize;
        assert!((1..=PORTS_MAX).contains(&count), "{count} ports");
        for port in request.ports.iter().take(count) {
            assert!(*port == NO_PORT || *port < PORT_RULES, "port {port}");
        }
        let fields = bytes.iter().filter(|byte| **byte == b':').count();
        assert!((6..=7).contains(&fields), "{fields} colons");
    }
    judge(bytes);
}

fn read(mut request: Request, bytes: &[u8]) -> Request {
    request.clear();
    bytes.iter().for_each(|byte| request.read(*byte));
    request
}

fn judge(bytes: &[u8]) {
    let mut scratch = FwknopScratch::zeroed();
    if !scratch.expect(bytes.len()) {
        return;
    }
    scratch.room().copy_from_slice(bytes);
    if !scratch.begin() {
        return;
    }
    let is_authentic = scratch.is_authentic(&FwknopNative, &HmacKey::new(b"a key that nobody has"));
    assert!(!is_authentic, "forged: {bytes:?}");
    // Only authentic packets are opened; these must not panic either.
    if let Some(passphrase) = Passphrase::new(b"0123456789abcdefghijklmnopqrstuv") {
        let _kind = fwknop::open(&FwknopNative, &mut scratch, &passphrase);
    }
}
