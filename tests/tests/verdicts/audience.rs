//! Ports with handshakes, whose doors only some sources may use.

use knock_common::Reason::{
    self, BadCookie, HandshakeClosed, HandshakeRest, SourceNotAllowed, SynCookieSent,
};
use knock_tests::{
    frame::{ACK, FIN, PSH, RST, SYN, SYN_ACK, eth},
    kernel::{Kernel, compile},
};
use knock_user::kernel::program::LoadOptions;

const CONFIG: &str = r#"
    decoys = { ports = ["tcp/2222"] }
    [[door]]
    name = "here"
    verify = "handshake"
    knock = ["tcp/7000", "tcp/9000", "tcp/8000"]
    open = ["tcp/22"]
    from = ["198.51.100.0/24", "2001:db8:a::/48"]
    [[door]]
    name = "there"
    verify = "handshake"
    knock = ["tcp/7500", "tcp/9000", "tcp/8500"]
    open = ["tcp/22"]
    from = ["203.0.113.0/24", "2001:db8:b::/48"]
"#;

const HERE: [&str; 2] = ["198.51.100.9", "2001:db8:a::9"];
const THERE: [&str; 2] = ["203.0.113.9", "2001:db8:b::9"];
const ELSEWHERE: [&str; 2] = ["198.18.0.9", "2001:db8:c::9"];

/// Flags, the reason for a source that is answered, and whether there is an answer.
const SEGMENTS: [(u8, Reason, bool); 7] = [
    (SYN, SynCookieSent, true),
    (FIN | ACK, HandshakeClosed, true),
    (ACK, BadCookie, false),
    (SYN_ACK, HandshakeRest, false),
    (PSH | ACK, HandshakeRest, false),
    (RST, HandshakeRest, false),
    (0, HandshakeRest, false),
];

#[test]
fn a_port_is_silent_to_sources_that_its_doors_do_not_admit() {
    let tables = compile(CONFIG).unwrap();
    let mut kernel = Kernel::with(&tables, LoadOptions::default()).unwrap();
    for (name, port, admitted) in [
        ("a knock of here", 8000, &[HERE][..]),
        ("a knock of there", 8500, &[THERE]),
        ("a knock of both", 9000, &[HERE, THERE]),
        ("a decoy", 2222, &[HERE, THERE]),
    ] {
        for source in [HERE, THERE, ELSEWHERE].concat() {
            for (flags, expected, is_answered) in SEGMENTS {
                let row = format!("{name}, tcp/{port}, {source}, flags {flags:#04x}");
                let way = match source.contains(':') {
                    true => eth().ip6(source, "2001:db8::2"),
                    false => eth().ip4(source, "192.0.2.2"),
                };
                let frame = way.tcp(40_000, port, flags).bytes();
                let (reason, answer) = kernel.answer(&frame).unwrap();
                let is_admitted = admitted.concat().contains(&source);
                let expected = if is_admitted {
                    expected
                } else {
                    SourceNotAllowed
                };
                assert_eq!(reason, expected, "{row}");
                assert_eq!(answer.is_some(), is_admitted && is_answered, "{row}");
            }
        }
    }
}
