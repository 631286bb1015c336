//! Sources that no host has.

use knock_common::Reason::{self, BadHeader, FirstKnock, NoGrant, Ordinary, StrayPort};
use knock_tests::{
    frame::{SYN, eth},
    kernel::Kernel,
};

#[test]
fn sources_that_no_host_has_are_refused() {
    let text = r#"
        trust = ["127.0.0.0/8", "::1"]
        decoys = { ports = ["tcp/2222"] }
        [[door]]
        name = "ssh"
        knock = ["udp/7000"]
        open = ["tcp/22"]
        on_open = ["true"]
        [[door]]
        name = "long"
        knock = ["tcp/7001", "udp/6001"]
        open = ["tcp/23"]
    "#;
    let mut kernel = Kernel::load(text).unwrap();
    for (source, is_host) in [
        ("0.0.0.0", false),
        ("0.1.2.3", false),
        ("127.0.0.1", false),
        ("127.255.255.254", false),
        ("224.0.0.1", false),
        ("239.255.255.255", false),
        ("255.255.255.255", false),
        ("::", false),
        ("::1", false),
        ("ff02::1", false),
        ("ff0e::1:2", false),
        // Linux takes these for hosts, and so do networks that have run out of other addresses.
        ("240.0.0.1", true),
        ("255.255.255.254", true),
        // Whether it is the first or last address of its network, only that network knows.
        ("10.0.0.0", true),
        ("10.0.0.255", true),
        ("192.0.2.255", true),
        // This host's own, which its network stack refuses.
        ("192.0.2.2", true),
        ("2001:db8::2", true),
        ("10.0.0.1", true),
        ("169.254.1.1", true),
        ("fe80::1", true),
        ("fd00::1", true),
    ] {
        let way = match source.contains(':') {
            true => eth().ip6(source, "2001:db8::2"),
            false => eth().ip4(source, "192.0.2.2"),
        };
        // Another source's grant or attempt in the same slot of the presence filter makes the judge read the tables.
        kernel
            .raise_presence(source.parse::<std::net::IpAddr>().unwrap().into())
            .unwrap();
        let reasons: &[Reason] = match is_host {
            true => &[NoGrant, FirstKnock, StrayPort],
            false => &[BadHeader, BadHeader, Ordinary],
        };
        for (port, reason) in [23, 7001, 1234].into_iter().zip(reasons) {
            let frame = way.clone().tcp(40_000, port, SYN).bytes();
            let judged = kernel.judge(&frame).unwrap();
            assert_eq!(judged.reason, *reason, "{source} to tcp/{port}");
        }
        let single = kernel.judge(&way.udp(40_000, 7000).bytes()).unwrap();
        let expected = if is_host { Reason::Opened } else { BadHeader };
        assert_eq!(single.reason, expected, "{source} to udp/7000");
    }
    // Ordinary packets of a host that has no address yet are not refused.
    let request = eth().ip4("0.0.0.0", "255.255.255.255").udp(68, 67).bytes();
    assert_eq!(kernel.judge(&request).unwrap().reason, Ordinary);
    let grants = kernel.allow().unwrap();
    assert_eq!(grants.len(), 11, "of hosts alone: {grants:?}");
}
