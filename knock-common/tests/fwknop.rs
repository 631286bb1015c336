//! Packets of fwknop, made with other implementations of the ciphers.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::net::IpAddr;

use bytemuck::Zeroable as _;
use knock_common::{
    Address,
    fwknop::{
        self, FwknopNative, FwknopScratch, PACKET_MAX, PREFIX, Passphrase,
        base64::character,
        text::{MessageKind, NO_PORT, Request, username_hash},
    },
    hmac_sha256::HmacKey,
    layout::port_index,
    packet::Protocol::{Tcp, Udp},
    spa::layout::SourcePrefix,
};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest},
};

#[path = "../../tests/src/fwknop.rs"]
#[expect(
    unreachable_pub,
    reason = "shared with the tests on the program in the kernel"
)]
mod seal;

use seal::{access, base64, encrypt, seal, tag, with_digest};

const PASSPHRASE: &[u8] = b"0123456789abcdefghijklmnopqrstuv";
const HMAC_KEY: &[u8] = b"another key";

#[test]
fn packets_of_the_stock_client_are_read() {
    let packet = "8BAgMEBQYHCISULpCdXiFH8OgyeYCV84j33tmZsFU55kzK+IxwEJ0r1vAxIVS7YR77hGMJTOqFpoAE37qwb4/kVMv0+vOYEdAK9\
        rp3l65Gw+4v8RIKRjCG6CRFh4UyQnhDOds91GN8NdZC+51YqhmzwAR+PF0WskSrHQDdnqLSUYunrJfTvrvj50fxcdKNwgs7HW5Ri0bWYqaxPPtF\
        5cnoxtbYhCuNobQ";
    let (kind, request) = open(b"testkey", b"testhmac", packet.as_bytes()).unwrap();
    assert_eq!(kind, MessageKind::Access);
    assert_eq!(request.timestamp, 1_700_000_000);
    assert_eq!(request.address, u32::from_be_bytes([203, 0, 113, 7]));
    assert_eq!(request.username, username_hash("alice"));
    assert_eq!(request.timeout, 0);
    assert_eq!(ports(&request), [port_index(Tcp, 22)]);

    let packet = "8BAgMEBQYHCISULpCdXiFH8OgyeYCV84j33tmZsFU55kzK+IxwEJ0rcEB01I+2OGPkgm2uz2xlGeowD665e3EhJyXvujCH0e1jR\
        M579+BUDVbts99T9wGlbeACqktsefPW0nb90RD+W9zh6k1aj56jF62cxv72VHr0M5Sp4cJMWDmMd4C+a6NE6U0lVWO1g+TckwC5LHr/\
        3zHJQSVH1nS0FqBL6nXsHso";
    let (kind, request) = open(b"testkey", b"testhmac", packet.as_bytes()).unwrap();
    assert_eq!(kind, MessageKind::Access);
    assert_eq!((request.address, request.timeout), (0, 45));
    assert_eq!(
        ports(&request),
        [port_index(Tcp, 22), port_index(Udp, 51820)]
    );
}

/// Names that differ in one character are different users.
#[test]
fn similar_user_names_have_different_hashes() {
    let name = b"alice.example";
    let letters = (b'!'..=b'~').filter(|letter| *letter != b':');
    let changed = letters.flat_map(|letter| {
        (0..name.len()).map(move |at| {
            let mut changed = *name;
            changed[at] = letter;
            changed
        })
    });
    for changed in changed.filter(|changed| changed != name) {
        let text = str::from_utf8(&changed).unwrap();
        assert_ne!(
            username_hash(text),
            username_hash("alice.example"),
            "{text}"
        );
    }
}

#[test]
fn a_prefix_has_the_addresses_whose_first_bits_are_its_own() {
    for (prefix, bits, address, is_in) in [
        ("192.0.2.7", 128, "192.0.2.7", true),
        ("192.0.2.7", 128, "192.0.2.6", false),
        ("192.0.2.0", 120, "192.0.2.255", true),
        ("192.0.2.0", 120, "192.0.3.0", false),
        ("192.0.2.0", 119, "192.0.3.255", true),
        ("192.0.2.0", 119, "192.0.4.0", false),
        ("0.0.0.0", 96, "203.0.113.9", true),
        ("0.0.0.0", 96, "2001:db8::9", false),
        ("128.0.0.0", 97, "127.255.255.255", false),
        ("2001:db8::", 32, "2001:db8:ffff::1", true),
        ("2001:db8::", 32, "2001:db9::1", false),
        ("2001:db8::", 33, "2001:db8:8000::1", false),
        ("2001:db8:1:2::", 64, "2001:db8:1:2:3::", true),
        ("2001:db8:1:2::", 64, "2001:db8:1:3::", false),
        ("::", 0, "192.0.2.7", true),
    ] {
        let [prefix, address] = [prefix, address].map(|text| {
            let address: IpAddr = text.parse().unwrap();
            Address::from(address)
        });
        let prefix = SourcePrefix::new(prefix, bits);
        assert_eq!(prefix.contains(address), is_in, "{prefix:?} {address:?}");
    }
}

#[test]
fn a_text_is_read_or_refused_as_a_whole() {
    let base = "1234567890123456:YWxpY2U:1700000000:3.0.0";
    let message = |text: &str| base64(text.as_bytes());
    let ssh = message("1.2.3.4,tcp/22");
    for (name, text, kind) in [
        ("access", format!("{base}:1:{ssh}:d"), MessageKind::Access),
        (
            "access with a timeout",
            format!("{base}:3:{ssh}:60:d"),
            MessageKind::Access,
        ),
        (
            "access with a timeout, without it",
            format!("{base}:3:{ssh}:d"),
            MessageKind::Unreadable,
        ),
        (
            "access with another field",
            format!("{base}:1:{ssh}:x:d"),
            MessageKind::Unreadable,
        ),
        (
            "no digest",
            format!("{base}:1:{ssh}"),
            MessageKind::Unreadable,
        ),
        (
            "an empty digest",
            format!("{base}:1:{ssh}:"),
            MessageKind::Unreadable,
        ),
        (
            "a timeout that is not a number",
            format!("{base}:3:{ssh}:6o:d"),
            MessageKind::Unreadable,
        ),
        (
            "a timeout of 13 digits",
            format!("{base}:3:{ssh}:1000000000000:d"),
            MessageKind::Unreadable,
        ),
        (
            "an empty timeout",
            format!("{base}:3:{ssh}::d"),
            MessageKind::Unreadable,
        ),
        (
            "a command",
            format!("{base}:0:{}:d", message("1.2.3.4,reboot")),
            MessageKind::Command,
        ),
        (
            "NAT",
            format!("{base}:2:{ssh}:{}:d", message("10.0.0.1,22")),
            MessageKind::Nat,
        ),
        (
            "NAT with a timeout",
            format!("{base}:4:{ssh}:{}:60:d", message("10.0.0.1,22")),
            MessageKind::Nat,
        ),
        (
            "local NAT",
            format!("{base}:5:{ssh}:{}:d", message("10.0.0.1,22")),
            MessageKind::Nat,
        ),
        (
            "local NAT with a timeout",
            format!("{base}:6:{ssh}:{}:60:d", message("10.0.0.1,22")),
            MessageKind::Nat,
        ),
        (
            "an unknown type",
            format!("{base}:7:{ssh}:d"),
            MessageKind::Unreadable,
        ),
        (
            "a type that is not a number",
            format!("{base}:1x:{ssh}:d"),
            MessageKind::Unreadable,
        ),
        (
            "no type",
            format!("{base}::{ssh}:d"),
            MessageKind::Unreadable,
        ),
        (
            "no user",
            format!("1234567890123456::1700000000:3.0.0:1:{ssh}:d"),
            MessageKind::Unreadable,
        ),
        (
            "a time that is not a number",
            format!("1:YWxpY2U:-1700000000:3.0.0:1:{ssh}:d"),
            MessageKind::Unreadable,
        ),
        (
            "no message",
            format!("{base}:1::d"),
            MessageKind::Unreadable,
        ),
        (
            "a message that is base64 but for a character in front",
            format!("{base}:1:-{ssh}:d"),
            MessageKind::Unreadable,
        ),
        (
            "a message that is not base64",
            format!("{base}:1:a-b:d"),
            MessageKind::Unreadable,
        ),
        (
            "nothing but fields",
            "::::::".to_owned(),
            MessageKind::Unreadable,
        ),
        (
            "no fields",
            "1234567890123456".to_owned(),
            MessageKind::Unreadable,
        ),
    ] {
        assert_eq!(opened(&format!("{text:0>100}")).0, kind, "{name}");
    }
}

#[test]
fn a_message_is_read_or_refused_as_a_whole() {
    let eight = "0.0.0.0,tcp/1,tcp/2,tcp/3,tcp/4,tcp/5,tcp/6,tcp/7,tcp/8";
    let ssh = port_index(Tcp, 22);
    for (name, message, expected) in [
        ("a port", "1.2.3.4,tcp/22", Some((0x0102_0304, vec![ssh]))),
        (
            "the greatest numbers",
            "255.255.255.255,udp/65535",
            Some((u32::MAX, vec![port_index(Udp, 65535)])),
        ),
        (
            "no address",
            "0.0.0.0,tcp/22,udp/53",
            Some((0, vec![ssh, port_index(Udp, 53)])),
        ),
        (
            "eight ports",
            eight,
            Some((0, (1..=8).map(|port| port_index(Tcp, port)).collect())),
        ),
        ("nine ports", &format!("{eight},tcp/9"), None),
        (
            "a protocol without ports",
            "1.2.3.4,icmp/1",
            Some((0x0102_0304, vec![NO_PORT])),
        ),
        (
            "another protocol",
            "1.2.3.4,sctp/22",
            Some((0x0102_0304, vec![NO_PORT])),
        ),
        ("a long protocol", "1.2.3.4,xtcpx/22", None),
        ("port 0", "1.2.3.4,tcp/0", None),
        ("a port above 65535", "1.2.3.4,tcp/65536", None),
        ("a port that wraps to one", "1.2.3.4,tcp/4294967318", None),
        ("no port", "1.2.3.4,tcp/", None),
        (
            "no protocol",
            "1.2.3.4,/22",
            Some((0x0102_0304, vec![NO_PORT])),
        ),
        ("no ports", "1.2.3.4", None),
        ("a comma at the end", "1.2.3.4,tcp/22,", None),
        ("three octets", "1.2.3,tcp/22", None),
        ("five octets", "1.2.3.4.5,tcp/22", None),
        ("an octet above 255", "1.2.3.256,tcp/22", None),
        ("an empty octet", "1..3.4,tcp/22", None),
        ("an IPv6 address", "2001:db8::1,tcp/22", None),
        ("a name", "example.org,tcp/22", None),
        ("spaces", "1.2.3.4, tcp/22", None),
        ("two messages", "1.2.3.4,tcp/22\n5.6.7.8,tcp/23", None),
        ("a zero byte", "1.2.3.4,tcp/22\0", None),
    ] {
        let (kind, request) = opened(&access("alice", message));
        let read =
            (kind == MessageKind::Access).then(|| (request.address, ports(&request).to_vec()));
        assert_eq!(read, expected, "{name}");
    }
}

#[test]
fn a_user_name_has_one_hash() {
    for name in ["a", "ab", "abc", "alice", &"x".repeat(64), "Ångström"] {
        let (_, request) = opened(&access(name, "0.0.0.0,tcp/22"));
        assert_eq!(request.username, username_hash(name), "{name}");
        assert_ne!(request.username, username_hash("bob"), "{name}");
    }
}

#[test]
fn a_packet_with_a_flipped_bit_is_refused() {
    let packet = seal(
        PASSPHRASE,
        HMAC_KEY,
        *b"saltsalt",
        access("alice", "0.0.0.0,tcp/22").as_bytes(),
    );
    for bit in 0..8 * packet.len() {
        let mut packet = packet.clone().into_bytes();
        packet[bit / 8] ^= 1 << (bit % 8);
        assert!(open(PASSPHRASE, HMAC_KEY, &packet).is_none(), "bit {bit}");
    }
}

#[test]
fn packets_in_another_format_are_refused() {
    let text = access("alice", "0.0.0.0,tcp/22");
    let whole = encrypt(PASSPHRASE, *b"saltsalt", text.as_bytes());
    let packet = seal(PASSPHRASE, HMAC_KEY, *b"saltsalt", text.as_bytes());
    let is_authentic = |packet: &str| open(PASSPHRASE, HMAC_KEY, packet.as_bytes()).is_some();
    assert!(is_authentic(&packet));
    let prefix = "U2FsdGVkX1";
    for (name, packet) in [
        ("the prefix put back", format!("{prefix}{packet}")),
        (
            "the prefix put back, with its HMAC",
            format!("{whole}{}", tag(HMAC_KEY, &whole)),
        ),
        ("without HMAC", whole[PREFIX.len()..].to_owned()),
        ("HMAC of what is sent", {
            let sent = &whole[PREFIX.len()..];
            format!("{sent}{}", tag(HMAC_KEY, sent))
        }),
        ("a prefix of GnuPG", format!("hQ{packet}")),
        ("a character less", packet[..packet.len() - 1].to_owned()),
        ("a character more", format!("{packet}A")),
        ("too short", packet[..139].to_owned()),
        ("too long", packet.repeat(3)),
        ("the bits of the HMAC that are to spare", {
            let last = packet.bytes().last().unwrap();
            let digit = (0..64).find(|digit| character(*digit) == last).unwrap();
            packet[..packet.len() - 1].to_owned() + &char::from(character(digit | 1)).to_string()
        }),
    ] {
        assert!(!is_authentic(&packet), "{name}");
    }
}

/// An authentic packet with another passphrase, as that of a client in legacy mode.
#[test]
fn a_packet_with_another_encryption_is_unreadable() {
    for salt in 0..=255_u8 {
        let text = access("alice", "0.0.0.0,tcp/22");
        let packet = seal(b"another", HMAC_KEY, [salt; 8], text.as_bytes());
        let (kind, _) = open(PASSPHRASE, HMAC_KEY, packet.as_bytes()).unwrap();
        assert_eq!(kind, MessageKind::Unreadable, "salt {salt}");
    }
}

proptest! {
    #[test]
    fn every_text_is_decrypted(
        passphrase in vec(any::<u8>(), 1..=32),
        hmac_key in vec(any::<u8>(), 1..=128),
        salt: [u8; 8],
        user in "[ -~]{1,64}",
        (a, b, c, d) in any::<(u8, u8, u8, u8)>(),
        asked in vec((any::<bool>(), 1..=u16::MAX), 1..=8),
        timestamp in 0_u64..1_000_000_000_000,
        timeout in proptest::option::of(0_u64..1_000_000_000_000),
    ) {
        let list: String = asked
            .iter()
            .map(|(is_udp, port)| format!(",{}/{port}", if *is_udp { "udp" } else { "tcp" }))
            .collect();
        let message = base64(format!("{a}.{b}.{c}.{d}{list}").as_bytes());
        let (kind, end) = match timeout {
            Some(timeout) => (3, format!(":{timeout}")),
            None => (1, String::new()),
        };
        let coded = base64(user.as_bytes());
        let text = with_digest(&format!("0123456789012345:{coded}:{timestamp}:3.0.0:{kind}:{message}{end}"));
        let packet = seal(&passphrase, &hmac_key, salt, text.as_bytes());
        if packet.len() > PACKET_MAX {
            prop_assert!(open(&passphrase, &hmac_key, packet.as_bytes()).is_none());
            return Ok(());
        }
        let (kind, request) = open(&passphrase, &hmac_key, packet.as_bytes()).unwrap();
        prop_assert_eq!(kind, MessageKind::Access);
        prop_assert_eq!(request.timestamp, timestamp);
        prop_assert_eq!(request.timeout, timeout.unwrap_or(0));
        prop_assert_eq!(request.address, u32::from_be_bytes([a, b, c, d]));
        prop_assert_eq!(request.username, username_hash(&user));
        let indexes: Vec<u32> = asked
            .iter()
            .map(|&(is_udp, port)| port_index(if is_udp { Udp } else { Tcp }, port))
            .collect();
        prop_assert_eq!(ports(&request), indexes);
    }

    /// The reader of a slice, written again with the standard library, agrees about each text.
    #[test]
    fn every_text_is_read_by_its_fields(text in texts()) {
        let packet = seal(PASSPHRASE, HMAC_KEY, *b"saltsalt", &text);
        if let Some((kind, request)) = open(PASSPHRASE, HMAC_KEY, packet.as_bytes()) {
            let is_access = fields(&text).is_some_and(|ports| ports == request.port_count as usize);
            prop_assert_eq!(kind == MessageKind::Access, is_access);
        }
    }

    #[test]
    fn any_bytes_are_refused(packet in vec(any::<u8>(), 0..600)) {
        prop_assert!(open(PASSPHRASE, HMAC_KEY, &packet).is_none());
    }
}

/// Returns what a packet is, judged with a stanza's keys; `None` if it is not authentic.
fn open(passphrase: &[u8], hmac_key: &[u8], packet: &[u8]) -> Option<(MessageKind, Request)> {
    let mut scratch = FwknopScratch::zeroed();
    if !scratch.expect(packet.len()) {
        return None;
    }
    scratch.room().copy_from_slice(packet);
    let is_authentic =
        scratch.begin() && scratch.is_authentic(&FwknopNative, &HmacKey::new(hmac_key));
    is_authentic.then(|| {
        let passphrase = Passphrase::new(passphrase).unwrap();
        let kind = fwknop::open(&FwknopNative, &mut scratch, &passphrase);
        (kind, scratch.request)
    })
}

fn opened(text: &str) -> (MessageKind, Request) {
    let packet = seal(PASSPHRASE, HMAC_KEY, *b"saltsalt", text.as_bytes());
    open(PASSPHRASE, HMAC_KEY, packet.as_bytes()).unwrap()
}

fn ports(request: &Request) -> &[u32] {
    &request.ports[..request.port_count as usize]
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(":".to_owned()),
        Just("1234567890123456:".to_owned()),
        any::<u8>().prop_map(|number| format!("{number}:")),
        any::<u32>().prop_map(|number| format!("{number}:")),
        "[ -~]{0,20}",
        "(tcp|udp|icmp)/[0-9]{0,6},?".prop_map(|text| base64(text.as_bytes())),
        "[0-9.]{0,16},(tcp/[0-9]{1,5},?){0,9}".prop_map(|text| base64(text.as_bytes()) + ":"),
    ];
    let free = vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![free, vec(any::<u8>(), 0..240)]
}

/// Returns how many ports a text of access asks for; `None` if it is malformed.
fn fields(text: &[u8]) -> Option<usize> {
    let fields: Vec<&[u8]> = text.split(|&byte| byte == b':').collect();
    let is_number =
        |text: &[u8]| (1..=12).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let number = |text: &[u8]| -> Option<u64> {
        std::str::from_utf8(text)
            .ok()
            .filter(|_| is_number(text))?
            .parse()
            .ok()
    };
    let [_, _, timestamp, _, kind, message, rest @ ..] = &fields[..] else {
        return None;
    };
    number(timestamp)?;
    match (number(kind)?, rest) {
        (1, [_]) => {}
        (3, [timeout, _]) => {
            number(timeout)?;
        }
        _ => return None,
    }
    if fields.iter().any(|field| field.is_empty()) {
        return None;
    }
    let mut bits = String::new();
    for byte in message.iter() {
        let digit = (0..64).find(|digit| character(*digit) == *byte)?;
        bits += &format!("{digit:06b}");
    }
    let message: Vec<u8> = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap())
        .collect();
    let message = String::from_utf8(message).ok()?;
    let (address, list) = message.split_once(',')?;
    let octets: Vec<&str> = address.split('.').collect();
    let is_octet = |text: &&str| {
        (1..=5).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && text.parse::<u32>().is_ok_and(|octet| octet < 256)
    };
    if octets.len() != 4 || !octets.iter().all(is_octet) {
        return None;
    }
    let ports: Vec<&str> = list.split(',').collect();
    for port in &ports {
        let (protocol, port) = port.split_once('/')?;
        let is_number =
            (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = protocol.len() <= 4 && protocol.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_port = port
            .parse::<u32>()
            .is_ok_and(|port| (1..65_536).contains(&port));
        let has_ports = matches!(protocol, "tcp" | "udp");
        if !is_name || !is_number || has_ports && !is_port {
            return None;
        }
    }
    (ports.len() <= fwknop::text::PORTS_MAX).then_some(ports.len())
}
